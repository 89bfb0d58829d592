//! Answers in time, answers from memory, and late ones that say something else.

use super::super::memory::tests::{caller, key};
use super::*;

/// Callers whose memory knows who has key 1, and what they announce.
fn callers() -> (Callers, broadcast::Receiver<Announcement>) {
    let mut memory = Memory::default();
    memory.heard(now());
    memory.learn(key(1), caller("desk"), "inst-1", now());
    assert!(memory.changed().is_some());
    let known = Known {
        contact: Arc::default(),
        memory: Mutex::new(memory),
        generations: Generations::default(),
        said_anew: false.into(),
    };
    let (announcements, announced) = broadcast::channel(8);
    (Callers::new(Arc::new(known), announcements), announced)
}

/// Has it asked over an open stream.
fn ask(callers: &mut Callers, of: u8, at: Instant) -> oneshot::Receiver<Answer> {
    let (back, answered) = oneshot::channel();
    callers.ask(key(of), back, true, at);
    answered
}

/// Sends what is due; its numbers.
fn sent(callers: &mut Callers, at: Instant) -> Vec<u64> {
    let mut numbers = Vec::new();
    let send = |frame: wire::ResolveRequest| {
        numbers.push(frame.number);
        numbers.extend(frame.more.iter().map(|it| it.number));
        true
    };
    callers.send(send, at);
    numbers
}

fn answer(callers: &mut Callers, number: u64, generation: u64, caller: Option<Arc<Caller>>) {
    let resolved = Resolved { caller, generation };
    callers.told(convert::resolve_response(number, &resolved, "inst-1"));
}

fn said(mut answered: oneshot::Receiver<Answer>) -> Option<Resolved> {
    match answered.try_recv() {
        Ok(Answer::Resolved(resolved)) => Some(resolved),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

fn name(resolved: &Resolved) -> &str {
    &resolved.caller.as_ref().unwrap().consumer.name
}

#[test]
fn a_late_answer_is_learned_and_what_was_said_instead_is_announced() {
    let (mut callers, mut announced) = callers();
    let begun = Instant::now();
    let late = ask(&mut callers, 1, begun);
    // It waited for its frame: its answer is waited for from then on.
    let begun = begun + PATIENCE / 2;
    assert_eq!(sent(&mut callers, begun), [1]);
    callers.look(begun + PATIENCE - LOOK);
    assert!(callers.known.contact.remembered.load(Ordering::Relaxed) == 0);
    callers.look(begun + PATIENCE);
    let before = said(late).unwrap();
    assert_eq!(name(&before), "desk");
    callers.look(begun + PATIENCE);
    assert!(announced.try_recv().is_err(), "nothing is known yet");
    answer(&mut callers, 1, 0, Some(caller("web")));
    callers.look(begun + PATIENCE);
    let Ok(Announcement::Changed {
        generation,
        consumers,
    }) = announced.try_recv()
    else {
        panic!("nothing was announced");
    };
    assert!(generation > before.generation, "what is held is older");
    assert_eq!(*consumers, ["desk".into()]);
    {
        let mut memory = callers.known.memory.lock();
        assert!(memory.changed().is_some(), "also for the next start");
        let learned = memory.recall(&key(1), now()).unwrap();
        assert_eq!(&*learned.consumer.name, "web");
    }
    // Whoever asks anew is told the new one, as of the present.
    let anew = ask(&mut callers, 1, begun);
    assert_eq!(sent(&mut callers, begun), [2]);
    answer(&mut callers, 2, 0, Some(caller("web")));
    let after = said(anew).unwrap();
    assert_eq!((name(&after), after.generation), ("web", generation));
}

#[test]
fn a_late_nobody_ends_it_and_a_late_yes_changes_nothing() {
    let (mut callers, mut announced) = callers();
    let begun = Instant::now();
    let same = ask(&mut callers, 1, begun);
    sent(&mut callers, begun);
    callers.look(begun + PATIENCE);
    assert!(said(same).is_some());
    answer(&mut callers, 1, 0, Some(caller("desk")));
    callers.look(begun + PATIENCE);
    assert!(announced.try_recv().is_err());
    let gone = ask(&mut callers, 1, begun);
    sent(&mut callers, begun);
    callers.look(begun + PATIENCE);
    assert!(said(gone).is_some());
    answer(&mut callers, 2, 0, None);
    callers.look(begun + PATIENCE);
    assert!(matches!(
        announced.try_recv(),
        Ok(Announcement::Changed { consumers, .. }) if *consumers == ["desk".into()]
    ));
    let memory = callers.known.memory.lock();
    assert!(memory.recall(&key(1), now()).is_none());
}

#[test]
fn a_store_that_began_anew_takes_nobody_away_even_before_it_said_what_is_revoked() {
    let (mut callers, _announced) = callers();
    callers
        .known
        .memory
        .lock()
        .learn(key(1), caller("desk"), "inst-0", now());
    let begun = Instant::now();
    let known = ask(&mut callers, 1, begun);
    let stranger = ask(&mut callers, 9, begun);
    assert_eq!(sent(&mut callers, begun), [1, 2]);
    answer(&mut callers, 1, 0, None);
    answer(&mut callers, 2, 0, None);
    assert_eq!(name(&said(known).unwrap()), "desk");
    assert_eq!(said(stranger).unwrap().caller, None);
}

#[test]
fn the_store_that_told_of_somebody_takes_them_away() {
    let (mut callers, _announced) = callers();
    // Also where it learned of them from a former one first, and revocations are that one's still.
    callers.known.memory.lock().revoke_all(&[], "inst-0");
    let begun = Instant::now();
    let gone = ask(&mut callers, 1, begun);
    sent(&mut callers, begun);
    answer(&mut callers, 1, 0, None);
    assert_eq!(said(gone).unwrap().caller, None);
    assert!(callers.known.memory.lock().recall(&key(1), now()).is_none());
}

#[test]
fn whom_memory_did_not_know_gets_no_answer_and_is_known_once_it_comes() {
    let (mut callers, mut announced) = callers();
    let begun = Instant::now();
    let unknown = ask(&mut callers, 9, begun);
    sent(&mut callers, begun);
    callers.look(begun + PATIENCE);
    assert!(said(unknown).is_none());
    answer(&mut callers, 1, 0, Some(caller("web")));
    callers.look(begun + PATIENCE);
    assert!(announced.try_recv().is_err(), "nobody was told otherwise");
    let memory = callers.known.memory.lock();
    assert!(memory.recall(&key(9), now()).is_some());
}

#[test]
fn what_memory_said_while_the_stream_was_gone_is_asked_for_anew_when_it_is_back() {
    let (mut callers, mut announced) = callers();
    let begun = Instant::now();
    let lost = ask(&mut callers, 1, begun);
    sent(&mut callers, begun);
    callers.close();
    assert_eq!(name(&said(lost).unwrap()), "desk");
    let (back, away) = oneshot::channel();
    callers.ask(key(1), back, false, begun);
    assert!(said(away).is_some(), "at once");
    callers.look(begun);
    assert!(announced.try_recv().is_err(), "nobody can be asked");
    callers.heard = true;
    callers.look(begun);
    assert!(matches!(
        announced.try_recv(),
        Ok(Announcement::Changed { .. })
    ));
    callers.heard = true;
    callers.look(begun);
    assert!(announced.try_recv().is_err(), "once");
}

#[test]
fn many_questions_go_in_few_frames_and_each_is_answered() {
    let (mut callers, _announced) = callers();
    let begun = Instant::now();
    let asked: Vec<_> = (0..2000).map(|_| ask(&mut callers, 9, begun)).collect();
    let mut frames = 0;
    let mut numbers = Vec::new();
    while callers.questions.is_due() {
        numbers.extend(sent(&mut callers, begun));
        frames += 1;
    }
    assert!(frames <= 4, "{frames}");
    assert_eq!(numbers, (1..=2000).collect::<Vec<u64>>());
    for number in numbers {
        answer(&mut callers, number, 0, Some(caller("web")));
    }
    assert!(asked.into_iter().all(|it| said(it).is_some()));
}

#[test]
fn more_questions_than_there_is_room_for_are_answered_from_memory() {
    let (mut callers, _announced) = callers();
    let begun = Instant::now();
    let waiting: Vec<_> = (0..4096).map(|_| ask(&mut callers, 9, begun)).collect();
    assert!(
        said(ask(&mut callers, 9, begun)).is_none(),
        "whom nobody knows"
    );
    assert_eq!(name(&said(ask(&mut callers, 1, begun)).unwrap()), "desk");
    let unanswered = || callers.known.contact.unanswered.load(Ordering::Relaxed);
    assert_eq!(unanswered(), 1);
    // Those nobody waits for make room.
    callers.look(begun + PATIENCE);
    assert_eq!(
        callers.known.contact.unanswered.load(Ordering::Relaxed),
        4097
    );
    drop(waiting);
    let fresh = ask(&mut callers, 9, begun + PATIENCE);
    let mut numbers = Vec::new();
    while callers.questions.is_due() {
        numbers.extend(sent(&mut callers, begun));
    }
    assert_eq!(numbers.len(), 4096);
    answer(
        &mut callers,
        *numbers.last().unwrap(),
        0,
        Some(caller("web")),
    );
    assert!(said(fresh).is_some());
}

#[test]
fn a_frame_for_which_there_is_no_room_goes_later() {
    let (mut callers, _announced) = callers();
    let begun = Instant::now();
    let asked = ask(&mut callers, 9, begun);
    callers.send(|_| false, begun);
    assert_eq!(sent(&mut callers, begun), [1]);
    assert!(sent(&mut callers, begun).is_empty());
    answer(&mut callers, 1, 0, None);
    assert!(said(asked).unwrap().caller.is_none());
}

#[test]
fn announcements_are_counted_here_whatever_number_they_have_there() {
    let generations = Generations::default();
    assert_eq!(generations.announced(700), 1);
    // Another control plane, or the same after a restart.
    assert_eq!(generations.announced(2), 2);
    assert_eq!(generations.announced(3), 3);
    assert_eq!(generations.now(), 3);
}

#[test]
fn an_answer_from_before_the_last_announcement_is_older_than_that() {
    let generations = Generations::default();
    generations.announced(10);
    let announced = generations.announced(11);
    assert!(generations.of(10) < announced);
    assert_eq!(generations.of(11), announced);
    assert_eq!(generations.of(12), announced);
}

#[test]
fn an_answer_before_any_announcement_is_of_the_first_state() {
    assert_eq!(Generations::default().of(0), 0);
    assert_eq!(Generations::default().of(5), 0);
}

#[test]
fn after_a_restart_of_the_control_plane_its_smaller_numbers_count() {
    let generations = Generations::default();
    generations.announced(900);
    let announced = generations.announced(1);
    assert_eq!(generations.of(1), announced);
}
