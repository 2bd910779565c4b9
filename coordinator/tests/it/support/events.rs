//! A reader of the event stream.

use ollama_coordinator_common::protocol::event::Event;
use ollama_simulator::wait::PATIENCE;
use tokio::time::timeout;

use super::api::{Answer, Api};
use super::process::CoordinatorProcess;

/// An open event stream.
#[derive(Debug)]
pub(crate) struct EventStream {
    answer: Answer,
    unread: String,
}

impl EventStream {
    pub(crate) async fn open(api: Api) -> Self {
        Self::open_at(api, "/api/events").await
    }

    pub(crate) async fn open_at(api: Api, path: &str) -> Self {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "text/event-stream");
        Self {
            answer,
            unread: String::new(),
        }
    }

    /// Returns the next event; `None` when the stream has ended as it should.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(length) = self.unread.find("\n\n") {
                let event: String = self.unread.drain(..length + 2).collect();
                let data = event.strip_prefix("data: ").expect("only data is sent");
                return Some(serde_json::from_str(data).expect("it is an event"));
            }
            let frame = timeout(PATIENCE, self.answer.next_frame()).await;
            let frame = frame.expect("a tick at least").expect("no failure")?;
            self.unread
                .push_str(std::str::from_utf8(&frame).expect("it is text"));
        }
    }

    /// Reads until `pick` takes something from an event.
    pub(crate) async fn until<T>(&mut self, pick: impl Fn(Event) -> Option<T>) -> T {
        let picked = async {
            loop {
                let event = self.next().await.expect("the stream goes on");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        timeout(PATIENCE, picked).await.expect("it is told in time")
    }

    /// Reads to the end of the stream.
    pub(crate) async fn drain(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// Stops the coordinator behind the stream and returns everything it has said.
    pub(crate) async fn stop_process_and_drain(
        &mut self,
        process: CoordinatorProcess,
    ) -> Vec<Event> {
        let (status, events) = tokio::join!(process.stop(), self.drain());
        assert!(status.success(), "{status}");
        events
    }
}
