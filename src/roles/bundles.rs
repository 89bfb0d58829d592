//! Publishes the APIs of a configuration directory: loads each with the engine of the nodes, and hands on what is good.
//!
//! A broken file leaves what was published; a panic stays with its API. An API is withdrawn when its file goes while this process looks
//! on; a directory that cannot be read, or lost all its files at once, withdraws nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tollgate_control::bundles::{Candidate, Publisher};
use tollgate_gateway::live::{Live, Origin, Packed};
use tollgate_gateway::telemetry::Metrics;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is tried again what could not be published, or may have been broken by what no file shows.
const TRY_AGAIN: u32 = 10;

/// Looks at `directory` and publishes what changed, until the task is dropped. `state_dir` keeps what services say of themselves.
pub(super) async fn publish(publisher: Publisher, directory: PathBuf, state_dir: PathBuf) {
    let state = state_dir.join("publishing");
    let mut editor = Editor::default();
    let mut live = None;
    let mut rounds: u32 = 0;
    loop {
        let fresh = live.is_none();
        let looked = {
            let (live, directory, state) = (live.take(), directory.clone(), state.clone());
            let (seen, due) = (
                editor.seen,
                editor.due || rounds.is_multiple_of(TRY_AGAIN) && editor.troubled,
            );
            tokio::task::spawn_blocking(move || look(live, directory, state, seen, due)).await
        };
        match looked {
            Ok(Ok(Look {
                live: loaded,
                packed,
                seen,
            })) => {
                if fresh {
                    let live = Arc::clone(&loaded);
                    publisher.knows_apis(Arc::new(move |api| live.apis().load().limits(api)));
                }
                live = Some(loaded);
                if let Some(packed) = packed {
                    editor.seen = seen;
                    editor.edit(&publisher, packed).await;
                }
            }
            Ok(Err(error)) => editor.say(format!("{error}; what is published stays")),
            Err(error) => editor.say(format!("the directory was not looked at: {error}")),
        }
        rounds = rounds.wrapping_add(1);
        tokio::time::sleep(LOOK).await;
    }
}

/// What a look found.
struct Look {
    live: Arc<Live>,
    /// `None`: nothing changed.
    packed: Option<Vec<Packed>>,
    /// How the files looked before they were read: what changed meanwhile is seen the next time. `None`: nobody knew yet which they are.
    seen: Option<u64>,
}

/// Blocks.
fn look(
    live: Option<Arc<Live>>,
    directory: PathBuf,
    state: PathBuf,
    seen: Option<u64>,
    due: bool,
) -> Result<Look, String> {
    std::fs::read_dir(directory.join("apis"))
        .map_err(|error| format!("cannot read {}/apis: {error}", directory.display()))?;
    let (live, seen) = match live {
        Some(live) => {
            let now = Some(live.stamp());
            if seen == now && !due {
                return Ok(Look {
                    live,
                    packed: None,
                    seen,
                });
            }
            live.reload();
            (live, now)
        }
        None => (
            Live::load(Origin::Directory(directory), Some(state), Metrics::new())?,
            None,
        ),
    };
    let packed = Some(live.packed());
    Ok(Look { live, packed, seen })
}

/// What was done with the directory so far.
#[derive(Default)]
struct Editor {
    seen: Option<u64>,
    /// APIs that had a file at the last look.
    files: BTreeSet<String>,
    /// Something could not be published: the store may be back.
    due: bool,
    /// Something is broken, maybe for a reason no file shows.
    troubled: bool,
    said: String,
}

impl Editor {
    async fn edit(&mut self, publisher: &Publisher, packed: Vec<Packed>) {
        let files: BTreeSet<String> = packed.iter().map(|it| it.api.clone()).collect();
        let found = packed
            .iter()
            .map(|it| (it.api.clone(), it.files.is_some(), it.findings.clone()));
        publisher.found(found.collect());
        self.troubled = packed.iter().any(|it| it.files.is_none());
        let candidates = packed.into_iter().filter_map(|it| {
            Some(Candidate {
                api: it.api,
                files: it.files?,
                service: it.service,
                access: it.access,
            })
        });
        let mut trouble = String::new();
        // Each for itself: what one lacks is no reason for another to wait.
        for candidate in candidates {
            if let Err(error) = publisher.publish(vec![candidate]).await {
                trouble = error.to_string();
            }
        }
        let gone: Vec<String> = self.files.difference(&files).cloned().collect();
        if files.is_empty() && gone.len() > 1 {
            trouble = "all API files are gone at once: nothing is withdrawn (DELETE /v1/bundles/{api} does)".to_owned();
        } else {
            for api in &gone {
                if let Err(error) = publisher.withdraw(api).await {
                    trouble = error.to_string();
                }
            }
            if trouble.is_empty() {
                self.files = files;
            } else {
                self.files.extend(files);
            }
        }
        self.due = !trouble.is_empty();
        self.say(trouble);
    }

    /// Once, not each second.
    fn say(&mut self, trouble: String) {
        if trouble != self.said && !trouble.is_empty() {
            tracing::error!("{trouble}");
        }
        self.said = trouble;
    }
}
