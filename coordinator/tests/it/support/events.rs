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
    /// The id of the last event that had one.
    pub(crate) last_id: String,
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
            last_id: String::new(),
        }
    }

    /// Goes on where another stream was.
    pub(crate) async fn resume(api: Api, last_id: &str) -> Self {
        Self::open_at(api, &format!("/api/events?since={last_id}")).await
    }

    /// Returns the next event; `None` when the stream has ended as it should.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(length) = self.unread.find("\n\n") {
                let event: String = self.unread.drain(..length + 2).collect();
                let mut data = event.as_str();
                if let Some(rest) = data.strip_prefix("id: ") {
                    let (id, rest) = rest.split_once('\n').expect("an id is one line");
                    id.clone_into(&mut self.last_id);
                    data = rest;
                }
                let data = data.strip_prefix("data: ").expect("ids and data are sent");
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
