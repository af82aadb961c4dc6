//! The files of the package agree with the program.

use whatsapp_worker::config::{Config, SETTINGS};

/// Set by systemd, or of use only by hand.
const NOT_OF_THE_SERVICE: [&str; 3] = ["STATE_DIR", "STATE_DIRECTORY", "SANDBOX_PORT"];

fn file(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_settings_file_lists_every_setting_with_its_default() {
    let mut expected = String::new();
    for setting in SETTINGS.iter().filter(|setting| !NOT_OF_THE_SERVICE.contains(&setting.name)) {
        expected += &format!("\n# {}.\n# Default: {}\n#{}=\n", setting.help, setting.default, setting.name);
        if setting.is_secret {
            expected += &format!("#{}_FILE=\n", setting.name);
        }
    }
    let text = file("packaging/worker.env");
    let (_, settings) = text.split_once("\n\n").expect("a head, then the settings");
    assert_eq!(
        format!("\n{settings}"),
        expected,
        "packaging/worker.env; the right side is what it should hold"
    );
}

#[test]
fn the_settings_file_as_it_is_installed_is_a_valid_configuration() {
    let lines = file("packaging/worker.env");
    let set = lines.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let vars = set.map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into()));
    let (config, warnings) = Config::from_env(vars).ok().unwrap();
    assert!(config.bind.ip().is_loopback(), "nobody is let in before a token is set");
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn the_service_gives_a_stop_the_time_it_may_take() {
    let unit = file("systemd/whatsapp-worker.service");
    let timeout = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let timeout: u64 = timeout.parse().unwrap();
    assert!(timeout >= whatsapp_worker::worker::STOP_DEADLINE.as_secs() + 10, "{timeout}");
}
