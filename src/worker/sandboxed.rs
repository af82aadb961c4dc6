//! `--sandbox`: a simulated WhatsApp in the same process, reached through the ordinary settings.
//!
//! Everything lives in a private temporary folder that is removed at the end, whatever `STATE_DIR` says: the
//! simulated service forgets its accounts when it stops, so sessions stored for longer could never log in again.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::{
    api::http::PrivateDir,
    sandbox::{Sandbox, SandboxOptions, StartError},
};

/// A running sandbox with a folder for the worker beside it.
pub struct Sandboxed {
    sandbox: Sandbox,
    dir: PrivateDir,
}

/// Why the sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxedError {
    /// The temporary folder or the certificate file in it cannot be made.
    #[error("cannot make a temporary folder for the sandbox")]
    Folder(#[from] io::Error),
    /// The sandbox itself.
    #[error("the sandbox does not start")]
    Sandbox(#[from] StartError),
}

impl Sandboxed {
    /// Starts the sandbox; its control API listens on this port of 127.0.0.1.
    ///
    /// # Errors
    /// [`SandboxedError`] with one clear line.
    pub fn start(control_port: u16) -> Result<Self, SandboxedError> {
        let dir = PrivateDir::create(None)?;
        let control = SocketAddr::from((Ipv4Addr::LOCALHOST, control_port));
        let sandbox = Sandbox::start(SandboxOptions { control, ..SandboxOptions::default() })?;
        let sandboxed = Self { sandbox, dir };
        fs::write(sandboxed.ca_file(), &sandboxed.sandbox.ca_pem)?;
        Ok(sandboxed)
    }

    /// Points a worker at the sandbox: replaces the settings that say where WhatsApp and the state are.
    pub fn apply(&self, variables: &mut Vec<(String, String)>) {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let ours = [
            ("STATE_DIRECTORY", String::new()),
            ("STATE_DIR", text(self.dir.path().join("state"))),
            ("WHATSAPP_URL", self.sandbox.whatsapp_url.clone()),
            ("WHATSAPP_NOISE_ROOT_KEY", self.sandbox.noise_root_hex()),
            ("WHATSAPP_CA_FILE", text(self.ca_file())),
        ];
        variables.retain(|(name, _)| ours.iter().all(|(our, _)| our != name));
        variables.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    }

    /// What to do next: shell lines that work when pasted one after the other.
    #[must_use]
    pub fn tour(&self, api: SocketAddr) -> String {
        let port = api.port();
        TOUR.replace("{api}", &format!("http://127.0.0.1:{port}"))
            .replace("{sandbox}", &self.sandbox.control_url)
            .replace("{whatsapp}", &self.sandbox.whatsapp_url)
    }

    /// Ends the sandbox and removes its folder.
    pub fn stop(self) {
        self.sandbox.stop();
    }

    fn ca_file(&self) -> PathBuf {
        self.dir.path().join("sandbox-ca.pem")
    }
}

const TOUR: &str = r#"
The worker runs with a simulated WhatsApp ({whatsapp}). Everything is forgotten at the end. Try it:

API={api}
SANDBOX={sandbox}

# two phones
curl -s -X POST $SANDBOX/phones -d '{"phone":"6281200000001","name":"Alice"}'
curl -s -X POST $SANDBOX/phones -d '{"phone":"6281200000002","name":"Bob"}'

# a session, its QR (a picture is at /session/demo/qr), and Alice's phone scanning it
curl -s -X POST $API/session/create -H 'Content-Type: application/json' -d '{"sessionId":"demo","userId":"me"}'
curl -s -X POST $API/session/demo/connect
curl -s -X POST $SANDBOX/phones/6281200000001/scan -d "{\"qr\":\"$(curl -s "$API/session/demo/qr?format=raw")\"}"
curl -s -X POST $API/session/demo/connect

# Alice writes to Bob through the API, Bob answers on his phone
curl -s -X POST $API/session/demo/send -H 'Content-Type: application/json' -d '{"to":"6281200000002","type":"text","message":"Hello Bob!"}'
curl -s "$SANDBOX/phones/6281200000002/messages?wait=5"
curl -s -X POST $SANDBOX/phones/6281200000002/send -d '{"to":"6281200000001","text":"Hello Alice!"}'
curl -s "$API/session/demo/messages?limit=10"

Stop with Ctrl-C.
"#;
