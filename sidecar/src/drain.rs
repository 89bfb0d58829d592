//! The end of a sidecar, which comes after that of its app: what the app still sends and receives goes on until then.
//!
//! Promises: it never waits longer than it was told to. Not here: finishing what is in flight afterwards, which is the engine's drain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::App;

/// How often the app is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// By what the app's end is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppEnd {
    /// Nobody listens on its port any more.
    Port,
    /// The process whose id stands in this file is no more. Until the file can be read it is known by its port.
    Process(PathBuf),
}

/// How long to go on accepting, once told to end.
#[derive(Clone, Debug)]
pub struct Farewell {
    /// The app.
    pub app: App,
    /// By what its end is known.
    pub end: AppEnd,
    /// The longest to wait for it.
    pub limit: Duration,
}

impl Farewell {
    /// Waits until the app has ended, or the limit.
    pub async fn over(self) {
        let (app, end) = (self.app, self.end);
        let ended = async {
            match process(&end) {
                Some(process) => process.ended().await,
                None => gone(&app).await,
            }
        };
        match tokio::time::timeout(self.limit, ended).await {
            Ok(()) => tracing::info!("the app has ended"),
            Err(_) => tracing::info!(
                seconds = self.limit.as_secs_f32(),
                "the app still runs; not waiting any longer"
            ),
        }
    }
}

async fn gone(app: &App) {
    while !app.is_gone().await {
        tokio::time::sleep(LOOK).await;
    }
}

/// A process, told from a later one with the same id by when it started.
struct Process {
    id: u32,
    started: u64,
}

fn process(end: &AppEnd) -> Option<Process> {
    let AppEnd::Process(file) = end else {
        return None;
    };
    match read_id(file) {
        Ok(id) => Some(Process {
            id,
            // One that has ended already has no start either: it is found ended at the first look.
            started: started(id).unwrap_or_default(),
        }),
        Err(error) => {
            let file = file.display();
            tracing::warn!("{file}: {error}; the end of the app is told by its port");
            None
        }
    }
}

fn read_id(file: &Path) -> Result<u32, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let id = text.trim().parse();
    id.map_err(|_| "there is no process id in it".to_owned())
}

/// When a process that runs was started, in ticks since the machine was; `None`: it does not run, or waits to be reaped (proc(5), `stat`).
fn started(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, the second field, may hold spaces and brackets.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Process {
    async fn ended(&self) {
        while started(self.id) == Some(self.started) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::process::Command;

    use tollgate_policy::settings::{ApiConfig, SecurityMode};

    use super::*;

    fn farewell(url: &str, end: AppEnd, limit: Duration) -> Farewell {
        let config = ApiConfig::for_spec(Path::new("spec.yaml"), url, SecurityMode::Off).unwrap();
        let app = App::new(&config.upstream, None).unwrap();
        Farewell { app, end, limit }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn it_waits_for_the_port_to_close_and_not_for_ever() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let short = farewell(&url, AppEnd::Port, Duration::from_millis(50));
        tokio::time::timeout(LONG, short.over()).await.unwrap();
        let waiting = tokio::spawn(farewell(&url, AppEnd::Port, LONG * 10).over());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(listener);
        tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn it_waits_for_the_process_of_the_file_also_while_nobody_reaps_it() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("app.pid");
        std::fs::write(&file, format!("{}\n", child.id())).unwrap();
        // Nobody listens there: it is the process that counts.
        let waiting = farewell("http://127.0.0.1:1", AppEnd::Process(file), LONG * 10);
        let waiting = tokio::spawn(waiting.over());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        child.kill().unwrap();
        tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_file_that_says_nothing_leaves_it_to_the_port() {
        let missing = AppEnd::Process("/nonexistent/app.pid".into());
        let over = farewell("http://127.0.0.1:1", missing, LONG * 10).over();
        tokio::time::timeout(LONG, over).await.unwrap();
    }
}
