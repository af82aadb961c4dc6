//! Groups of three: one of our sessions, the real Baileys client, and a phone.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{
    baileys::Baileys,
    sandbox::Sandbox,
    worker::{Worker, chat},
};
use serde_json::json;

const OURS: &str = "6281200000031";
const THEIRS: &str = "4915100000032";
const CAROL: &str = "4915100000033";

struct Three {
    sandbox: Sandbox,
    worker: Worker,
    baileys: Baileys,
}

fn three() -> Three {
    let sandbox = Sandbox::start();
    for phone in [OURS, THEIRS, CAROL] {
        sandbox.add_phone(phone);
    }
    let worker = Worker::start(&sandbox);
    worker.link(&sandbox, "ours", OURS);
    let baileys = Baileys::start(&sandbox);
    baileys.link(&sandbox, "theirs", THEIRS);
    Three { sandbox, worker, baileys }
}

impl Three {
    /// Everybody writes `rounds` times, in turns, and everybody else has it.
    fn talk(&self, group: &str, rounds: usize) {
        let (mut at_us, mut at_baileys, mut at_carol) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            let text = format!("ours {round}");
            self.worker.send("ours", group, &text);
            at_baileys.push(text.clone());
            at_carol.push(text);
            self.baileys.await_received("theirs", Some(group), &at_baileys);
            let text = format!("theirs {round}");
            self.baileys.send("theirs", group, &text);
            at_us.push(text.clone());
            at_carol.push(text);
            self.worker.await_received("ours", group, &at_us);
            let text = format!("Carol's {round}");
            self.sandbox.send(CAROL, group, &text);
            at_us.push(text.clone());
            at_baileys.push(text);
            self.worker.await_received("ours", group, &at_us);
            self.baileys.await_received("theirs", Some(group), &at_baileys);
            self.sandbox.await_received(CAROL, &at_carol);
        }
        let history = self.worker.history("ours");
        let senders: Vec<_> = history.iter().rev().filter(|message| message["fromMe"] == false).collect();
        assert_eq!(senders[0]["from"], chat(THEIRS), "{senders:#?}");
        assert_eq!(senders[1]["from"], chat(CAROL), "{senders:#?}");
    }
}

#[test]
fn a_group_made_by_our_account_talks_in_all_directions() {
    let three = three();
    let group = three.sandbox.create_group(OURS, &[THEIRS, CAROL]);
    three.talk(&group, 5);
    three.baileys.assert_no_trouble();
    three.sandbox.assert_no_violations();
}

#[test]
fn a_group_made_by_baileys_talks_until_somebody_leaves_it() {
    let three = three();
    let body = json!({ "subject": "Friends", "participants": [OURS, CAROL] });
    let group = three.baileys.ask("theirs", "createGroup", &body)["group"].as_str().unwrap().to_owned();
    three.talk(&group, 3);

    let Three { sandbox, worker, baileys } = &three;
    let carol_has = sandbox.received(CAROL);
    let removal = json!({ "actor": THEIRS, "participant": CAROL });
    sandbox.post(&format!("/groups/{group}/remove"), &removal);
    common::eventually("our session knows that somebody left", || {
        let events = worker.events("ours");
        events.iter().any(|event| event["type"] == "group-changed").then_some(())
    });
    worker.send("ours", &group, "without Carol");
    let mut at_baileys = baileys.received("theirs", Some(&group));
    if at_baileys.last().is_none_or(|text| text != "without Carol") {
        at_baileys.push("without Carol".to_owned());
    }
    baileys.await_received("theirs", Some(&group), &at_baileys);
    baileys.send("theirs", &group, "just us");
    let mut at_us = worker.received("ours", &group);
    if at_us.last().is_none_or(|text| text != "just us") {
        at_us.push("just us".to_owned());
    }
    worker.await_received("ours", &group, &at_us);
    assert_eq!(sandbox.received(CAROL), carol_has, "who left reads nothing more");
    sandbox.assert_no_violations();
}
