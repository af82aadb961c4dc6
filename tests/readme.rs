//! The README tells the truth: its settings are the program's settings.

use whatsapp_worker::config::SETTINGS;

const README: &str = include_str!("../README.md");

#[test]
fn every_setting_is_in_the_readme_with_its_default() {
    for setting in SETTINGS {
        let row = format!("| `{}` | {} |", setting.name, setting.default);
        assert!(README.contains(&row), "the README lacks: {row}");
    }
}

#[test]
fn the_readme_names_no_setting_that_does_not_exist() {
    let rows = README.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    for (name, _) in rows.filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')) {
        assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name} is no setting");
    }
}
