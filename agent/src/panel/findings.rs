//! What trying a connection came to, layer by layer, as it is shown on the page.

use maud::{Markup, html};
use ollama_coordinator_common::doctor::{Answer, Check, CheckId, first_broken};

/// Returns the first broken layer, or that there is none, and then all that was looked at.
pub(super) fn findings(checks: &[Check]) -> Markup {
    let broken = first_broken(checks);
    html! {
        div #test .findings role="status" {
            p.notice.(if broken.is_some() { "bad" } else { "good" }) {
                @match broken {
                    None => "The connection works.",
                    Some(check) => {
                        strong { (layer(check.id)) ": " }
                        (check)
                    }
                }
            }
            ol {
                @for check in checks {
                    li data-check=(check.id.name()) class=(answer_class(check.answer)) {
                        span.answer { (check.answer.sign()) " " (answer_word(check.answer)) }
                        span { strong { (layer(check.id)) } " " (check.found) }
                    }
                }
            }
        }
    }
}

/// Returns what a layer is called here.
fn layer(id: CheckId) -> &'static str {
    let layers = [
        (CheckId::Settings, "URL"),
        (CheckId::Name, "Name"),
        (CheckId::Proxy, "Proxy"),
        (CheckId::Tcp, "Connection"),
        (CheckId::Http, "HTTP"),
        (CheckId::Coordinator, "Coordinator"),
        (CheckId::Version, "Version"),
        (CheckId::Clock, "Clock"),
    ];
    let named = layers.into_iter().find(|(layer, _)| *layer == id);
    named.map_or(id.name(), |(_, name)| name)
}

fn answer_word(answer: Answer) -> &'static str {
    match answer {
        Answer::Ok => "works",
        Answer::Warning => "works, but",
        Answer::Error => "broken",
        Answer::Unknown => "unknown",
    }
}

fn answer_class(answer: Answer) -> &'static str {
    match answer {
        Answer::Ok => "yes",
        Answer::Warning => "warning",
        Answer::Error => "no",
        Answer::Unknown => "unknown",
    }
}
