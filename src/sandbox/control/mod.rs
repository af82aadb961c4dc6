//! The control API: HTTP and JSON on loopback, to make phones, let them act, and cause trouble.
//!
//! Answers are `{"success":true,"data":…}`, errors 4xx `{"success":false,"error":…,"code":…,"details":{"field":…}}`.
//!
//! | route | what it does |
//! |---|---|
//! | `GET /info` | `whatsappUrl`, `noiseRootKey` (hex), `caPem` for clients |
//! | `POST /phones {phone?, name?, lidMigrated?}` | makes an account with its phone; `lidMigrated` (default true): its 1:1 chats are LID-addressed |
//! | `POST /phones/bulk {count, lidMigrated?}` | makes many |
//! | `GET /phones`, `GET /phones/{phone}` | accounts with their linked devices |
//! | `POST /phones/{phone}/scan {qr, lie?}` | scans a QR text; answers when the client is linked. `lie`: `bad-hmac`, `bad-account-signature` |
//! | `POST /phones/{phone}/pair-code {code, lie?}` | types a pairing code |
//! | `POST /scan-bulk {phones, qrs}` | scans many, without waiting |
//! | `POST /phones/{phone}/send {to, text}` | sends to a number, a JID or a group |
//! | `GET /phones/{phone}/messages?after=N&wait=S` | what it sent and received, skipping N, waiting up to S seconds for one more |
//! | `POST /phones/{phone}/read {chat}` | marks a chat as read |
//! | `POST /phones/{phone}/unlink {device?}` | unlinks a device (default: the newest) |
//! | `POST /phones/{phone}/forget-sessions` | loses its Signal sessions: retry receipts follow |
//! | `POST /phones/{phone}/reinstall` | new identity, companions unlinked, contacts told |
//! | `POST /phones/{phone}/migrate` | its 1:1 chats are LID-addressed from now on, companions told |
//! | `POST /phones/{phone}/faults {fault, device?, …}` | `drop`, `freeze`, `stream-error {code?, conflict?}`, `failure {reason}`, `replaced`, `delay {ms}`, `lose-receipts {on}`, `lose-answers {on}`, `low-prekeys {count}`, `redeliver`, `false-bundles {on}` (also device 0, the phone), `unlink` |
//! | `POST /groups {creator, subject, participants, addressingMode?}` | makes a group |
//! | `POST /groups/{group}/{add,remove,promote,demote} {actor, participant}` | changes a member |
//! | `POST /options {lowPrekeys?, requireTokens?, requirePasskey?, aggregateReceipts?, answerDeadlineMs?, chain?}` | behaviour of the service; `chain`: `none`, `wrong-root`, `forged-leaf`, `other-key`, `expired`, `wrong-serial`, `missing-leaf`, `missing-intermediate` |
//! | `POST /blast {from, to, count, rate?, text?}`, `GET /blast` | many texts from phones, and how it goes |
//! | `GET /violations`, `DELETE /violations` | what clients did wrong |

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    link::ChainLie,
    phone::{LinkLie, LinkState, Phone, PhoneCtx},
    server::{Shared, lock},
    service::{DeviceRef, Fault, MemberChange},
    world::{NewPhone, SandboxError},
};
use crate::{
    api::http::{Handler, Request},
    whatsapp::jid::Jid,
};

mod blast;
mod body;

use blast::{Blast, Order};
use body::{Body, failure, invalid, not_found, success};

/// What clients need to connect.
#[derive(Debug, Clone)]
pub(super) struct Info {
    pub(super) whatsapp_url: String,
    pub(super) ca_pem: String,
    pub(super) noise_root: String,
}

/// The request handler.
pub(super) fn handler(shared: Arc<Shared>, info: Info) -> Handler {
    let control = Control { shared, info, blast: Arc::new(Blast::default()) };
    Arc::new(move |request| match control.route(&request) {
        Ok(Some(data)) => success(&data),
        Ok(None) => not_found(&request),
        Err(error) => failure(&error),
    })
}

struct Control {
    shared: Arc<Shared>,
    info: Info,
    blast: Arc<Blast>,
}

type Answer = Result<Value, SandboxError>;

impl Control {
    /// `None`: there is no such route.
    fn route(&self, request: &Request) -> Result<Option<Value>, SandboxError> {
        let answer = match (request.method.as_str(), request.path().as_slice()) {
            ("GET", ["info"]) => Ok(self.info()),
            ("GET", ["phones"]) => Ok(self.phones()),
            ("POST", ["phones"]) => self.add_phone(request),
            ("POST", ["phones", "bulk"]) => self.add_phones(request),
            ("POST", ["scan-bulk"]) => self.scan_bulk(request),
            ("GET", ["phones", phone]) => self.phone(phone),
            ("POST", ["phones", phone, "scan"]) => self.scan(phone, request),
            ("POST", ["phones", phone, "pair-code"]) => self.pair_code(phone, request),
            ("POST", ["phones", phone, "send"]) => self.send(phone, request),
            ("GET", ["phones", phone, "messages"]) => self.messages(phone, request),
            ("POST", ["phones", phone, "read"]) => self.read(phone, request),
            ("POST", ["phones", phone, "unlink"]) => self.unlink(phone, request),
            ("POST", ["phones", phone, "forget-sessions"]) => {
                self.on_phone(phone, |phone, _| phone.forget_sessions())
            }
            ("POST", ["phones", phone, "reinstall"]) => self.on_phone(phone, Phone::reinstall),
            ("POST", ["phones", phone, "migrate"]) => self.on_phone(phone, Phone::migrate),
            ("POST", ["phones", phone, "faults"]) => self.fault(phone, request),
            ("POST", ["groups"]) => self.create_group(request),
            ("POST", ["groups", group, change @ ("add" | "remove" | "promote" | "demote")]) => {
                self.change_group(group, change, request)
            }
            ("POST", ["options"]) => self.options(request),
            ("POST", ["blast"]) => self.start_blast(request),
            ("GET", ["blast"]) => Ok(self.blast.status()),
            ("GET", ["violations"]) => Ok(self.violations()),
            ("DELETE", ["violations"]) => {
                self.shared.service(None, super::service::Service::clear_violations);
                Ok(json!({}))
            }
            _ => return Ok(None),
        };
        answer.map(Some)
    }

    fn info(&self) -> Value {
        json!({
            "whatsappUrl": self.info.whatsapp_url,
            "noiseRootKey": self.info.noise_root,
            "caPem": self.info.ca_pem,
        })
    }

    fn phones(&self) -> Value {
        json!(self.shared.service(None, |service| service.views()))
    }

    fn phone(&self, phone: &str) -> Answer {
        let state = self.shared.phone(phone, |phone, _| Ok(phone.link_state.clone()))?;
        let account = self.account(phone)?;
        let view = self.shared.service(None, |service| service.view(account));
        let mut value = json!(view);
        value["link"] = json!(state);
        Ok(value)
    }

    fn add_phone(&self, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let number = body.opt_text("phone")?;
        let name = body.opt_text("name")?;
        let migrated = self.lid_migrated(&mut body)?;
        body.end()?;
        let number = number.unwrap_or_else(|| self.free_number(FIRST_NUMBER));
        self.make_phone(number.trim_start_matches('+'), name, migrated)
    }

    fn lid_migrated(&self, body: &mut Body) -> Result<bool, SandboxError> {
        let camel = body.opt_bool("lidMigrated")?;
        Ok(camel.or(body.opt_bool("lid_migrated")?).unwrap_or(true))
    }

    /// The first number from `first` on that is not taken.
    fn free_number(&self, first: u64) -> String {
        self.shared.service(None, |service| {
            let taken = service.views().len() as u64;
            let mut number = first + taken;
            while service.account_of_number(&number.to_string()).is_some() {
                number += 1;
            }
            number.to_string()
        })
    }

    fn make_phone(&self, number: &str, name: Option<String>, lid_migrated: bool) -> Answer {
        let mut options = NewPhone::number(number);
        options.lid_migrated = lid_migrated;
        if let Some(name) = name {
            options.name = name;
        }
        let account = self.shared.phones(|phones, ctx| phones.add(&options, ctx))?;
        Ok(json!(self.shared.service(None, |service| service.view(account))))
    }

    fn add_phones(&self, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let count = body.opt_number("count", MAX_BULK)?.ok_or_else(|| invalid("count", "is required"))?;
        let migrated = self.lid_migrated(&mut body)?;
        body.end()?;
        let first: u64 = self.free_number(FIRST_NUMBER).parse().unwrap_or(FIRST_NUMBER);
        let mut made = Vec::new();
        let mut number = first;
        while made.len() as u64 != count {
            match self.make_phone(&number.to_string(), None, migrated) {
                Ok(phone) => made.push(phone),
                Err(SandboxError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            number += 1;
        }
        Ok(json!(made))
    }

    fn scan(&self, phone: &str, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let qr = body.text("qr")?;
        let lie = body.opt_value::<LinkLie>("lie")?.unwrap_or_default();
        body.end()?;
        self.shared.phone(phone, |phone, ctx| {
            phone.lie = lie;
            phone.scan(&qr, ctx)
        })?;
        self.await_link(phone)
    }

    fn scan_bulk(&self, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let (phones, codes) = (body.texts("phones")?, body.texts("qrs")?);
        body.end()?;
        if phones.len() != codes.len() {
            return Err(invalid("qrs", "must be as long as phones"));
        }
        let results = phones.iter().zip(&codes).map(|(phone, qr)| {
            match self.shared.phone(phone, |phone, ctx| phone.scan(qr, ctx)) {
                Ok(()) => json!({ "phone": phone, "scanned": true }),
                Err(error) => json!({ "phone": phone, "scanned": false, "error": error.to_string() }),
            }
        });
        Ok(Value::Array(results.collect()))
    }

    fn pair_code(&self, phone: &str, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let code = body.text("code")?;
        let lie = body.opt_value::<LinkLie>("lie")?.unwrap_or_default();
        body.end()?;
        self.shared.phone(phone, |phone, ctx| {
            phone.lie = lie;
            phone.type_code(&code, ctx)
        })?;
        self.await_link(phone)
    }

    /// Waits until the companion accepted or refused.
    fn await_link(&self, number: &str) -> Answer {
        let look = |phone: &mut Phone| match &phone.link_state {
            LinkState::None | LinkState::Pending => None,
            LinkState::Linked(device) => Some(Ok(*device)),
            LinkState::Failed(reason) => Some(Err(SandboxError::Conflict(reason.clone()))),
        };
        let result = self
            .shared
            .wait_for(LINK_TIMEOUT, || self.shared.phone(number, |phone, _| Ok(look(phone))).ok().flatten());
        match result {
            Some(Ok(device)) => Ok(json!({ "device": device })),
            Some(Err(error)) => Err(error),
            None => Err(SandboxError::Conflict("the client did not answer in time".to_owned())),
        }
    }

    fn send(&self, phone: &str, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let (to, text) = (body.text("to")?, body.text("text")?);
        body.end()?;
        let id = self.shared.phone(phone, |phone, ctx| phone.send_text(&to, &text, ctx))?;
        Ok(json!({ "messageId": id }))
    }

    /// `?after=<count>` skips that many messages, `?wait=<seconds>` waits for one more than that.
    fn messages(&self, phone: &str, request: &Request) -> Answer {
        let number = |field: &'static str| match request.query(field) {
            None => Ok(0),
            Some(text) => text.parse::<usize>().map_err(|_| invalid(field, "must be a whole number")),
        };
        let (after, wait) = (number("after")?, number("wait")?.min(MAX_WAIT_S));
        let read = || {
            self.shared.phone(phone, |phone, _| {
                let all = phone.messages();
                Ok(json!({ "messages": all.get(after..).unwrap_or_default(), "total": all.len() }))
            })
        };
        let has_more = |value: &Value| value["messages"].as_array().is_some_and(|list| !list.is_empty());
        let first = read()?;
        if has_more(&first) || wait == 0 {
            return Ok(first);
        }
        let patience = Duration::from_secs(wait as u64);
        let found = self.shared.wait_for(patience, || read().ok().filter(|value| has_more(value)));
        Ok(found.unwrap_or(first))
    }

    fn read(&self, phone: &str, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let chat = body.text("chat")?;
        body.end()?;
        self.shared.phone(phone, |phone, ctx| phone.mark_read(&chat, ctx))?;
        Ok(json!({}))
    }

    fn unlink(&self, phone: &str, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let device = self.device(phone, body.opt_number("device", u64::from(u16::MAX))?)?;
        body.end()?;
        let now = self.shared.now();
        self.shared
            .service(None, |service| service.inject(device.account, device.device, &Fault::Unlink, now))?;
        Ok(json!({ "device": device.device }))
    }

    fn on_phone(&self, phone: &str, act: impl FnOnce(&mut Phone, &mut PhoneCtx<'_>)) -> Answer {
        self.shared.phone(phone, |phone, ctx| {
            act(phone, ctx);
            Ok(json!({}))
        })
    }

    fn fault(&self, phone: &str, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let device = self.device(phone, body.opt_number("device", u64::from(u16::MAX))?)?;
        let fault: Fault = body.rest("fault")?;
        let now = self.shared.now();
        self.shared.service(None, |service| service.inject(device.account, device.device, &fault, now))?;
        Ok(json!({ "device": device.device }))
    }

    fn account(&self, phone: &str) -> Result<u32, SandboxError> {
        let number = phone.trim_start_matches('+');
        self.shared
            .service(None, |service| service.account_of_number(number))
            .ok_or_else(|| SandboxError::NoSuchPhone(phone.to_owned()))
    }

    /// The linked device meant; without a number the one that was linked last.
    fn device(&self, phone: &str, device: Option<u64>) -> Result<DeviceRef, SandboxError> {
        let account = self.account(phone)?;
        let device = device.and_then(|device| u16::try_from(device).ok());
        let last = || {
            let view = self.shared.service(None, |service| service.view(account));
            view.devices.last().map(|device| device.id)
        };
        let device =
            device.or_else(last).ok_or_else(|| invalid("device", "this phone has no linked device"))?;
        Ok(DeviceRef { account, device })
    }

    fn create_group(&self, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let (creator, subject) = (body.text("creator")?, body.text("subject")?);
        let participants = body.texts("participants")?;
        let mode = body.opt_text("addressingMode")?;
        body.end()?;
        let device = DeviceRef { account: self.account(&creator)?, device: 0 };
        let members: Vec<Jid> = participants.into_iter().map(member).collect();
        let lid = match mode.as_deref() {
            None => self.shared.service(None, |service| service.view(device.account).lid_migrated),
            Some("lid") => true,
            Some("pn") => false,
            Some(_) => return Err(invalid("addressingMode", "must be lid or pn")),
        };
        let now = self.shared.now();
        let group = self
            .shared
            .service(None, |service| service.create_group(device, &subject, &members, lid, now))?;
        Ok(json!({ "group": group.to_string() }))
    }

    fn change_group(&self, group: &str, change: &str, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let (actor, participant) = (body.text("actor")?, body.text("participant")?);
        body.end()?;
        let actor = DeviceRef { account: self.account(&actor)?, device: 0 };
        let change = match change {
            "add" => MemberChange::Add,
            "remove" => MemberChange::Remove,
            "promote" => MemberChange::Promote,
            _ => MemberChange::Demote,
        };
        let group: Jid = group.parse().map_err(|_| invalid("group", "is not a group JID"))?;
        let (now, participant) = (self.shared.now(), member(participant));
        self.shared
            .service(None, |service| service.change_member(actor, &group, change, &participant, now))?;
        Ok(json!({}))
    }

    fn options(&self, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let low = body.opt_number("lowPrekeys", 1000)?;
        let tokens = body.opt_bool("requireTokens")?;
        let passkey = body.opt_bool("requirePasskey")?;
        let aggregate = body.opt_bool("aggregateReceipts")?;
        let deadline = body.opt_number("answerDeadlineMs", 3_600_000)?;
        let chain = body.opt_value::<ChainLie>("chain")?;
        body.end()?;
        if let Some(chain) = chain {
            *lock(&self.shared.lie) = chain;
        }
        self.shared.service(None, |service| {
            let options = service.options_mut();
            if let Some(low) = low.and_then(|low| usize::try_from(low).ok()) {
                options.low_prekeys = low;
            }
            options.require_tokens = tokens.unwrap_or(options.require_tokens);
            options.require_passkey = passkey.unwrap_or(options.require_passkey);
            options.aggregate_receipts = aggregate.unwrap_or(options.aggregate_receipts);
            options.answer_deadline = deadline.map_or(options.answer_deadline, Duration::from_millis);
        });
        Ok(json!({}))
    }

    fn start_blast(&self, request: &Request) -> Answer {
        let mut body = Body::read(request)?;
        let order = Order {
            from: body.texts("from")?,
            to: body.texts("to")?,
            count: body.opt_number("count", MAX_BLAST)?.ok_or_else(|| invalid("count", "is required"))?,
            rate: body.opt_number("rate", 1_000_000)?.unwrap_or(0),
            text: body.opt_text("text")?.unwrap_or_else(|| "blast".to_owned()),
        };
        body.end()?;
        self.blast.start(&self.shared, order)?;
        Ok(self.blast.status())
    }

    fn violations(&self) -> Value {
        self.shared.service(None, |service| {
            let violations = service.violations();
            let list: Vec<_> = violations.iter().collect();
            json!({
                "total": violations.total(),
                "retriesAsked": service.retries_asked(),
                "violations": list,
            })
        })
    }
}

/// A member given as a phone number or a JID.
fn member(text: String) -> Jid {
    text.parse().unwrap_or_else(|_| Jid::pn(text.trim_start_matches('+').to_owned()))
}

/// Invented numbers: no real subscriber has them.
const FIRST_NUMBER: u64 = 4_915_100_000_001;

const MAX_BULK: u64 = 10_000;
const MAX_BLAST: u64 = 10_000_000;
const MAX_WAIT_S: usize = 60;

/// Pairing on a busy machine takes well under a second.
const LINK_TIMEOUT: Duration = Duration::from_secs(15);
