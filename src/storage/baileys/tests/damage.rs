//! Folders nobody should have written: every damage is named, costs what it held, and nothing panics.

use super::*;

fn edited(file: &str, name: &str, edit: impl FnOnce(&mut Value)) -> Folder {
    let mut folder = folder(file);
    let mut value = serde_json::from_slice(&folder[name]).unwrap();
    edit(&mut value);
    folder.insert(name.to_owned(), value.to_string().into_bytes());
    folder
}

fn refusal(folder: Folder) -> String {
    let error = load(folder.into_iter(), Freshness::Clean).unwrap_err();
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

#[test]
fn damaged_credentials_cost_the_account_and_are_never_replaced() {
    let creds = |edit: fn(&mut Value)| refusal(edited("seven_lid.json", "creds.json", edit));
    assert_eq!(refusal(Folder::new()), "there is no creds.json");
    let mut empty = folder("seven_lid.json");
    empty.insert("creds.json".to_owned(), Vec::new());
    assert_eq!(refusal(empty), "creds.json cannot be used: it is empty");
    let mut cut = folder("seven_lid.json");
    cut.get_mut("creds.json").unwrap().truncate(700);
    assert!(refusal(cut).starts_with("creds.json cannot be used: it is not the JSON it should be"));
    assert!(
        creds(|creds| drop(creds.as_object_mut().unwrap().remove("me"))).ends_with("never linked to a phone")
    );
    assert!(creds(|creds| creds["account"] = Value::Null).ends_with("account is missing or malformed"));
    assert!(
        creds(|creds| creds["me"]["id"] = json!("6281200000050@s.whatsapp.net")).contains("names a phone")
    );
    assert!(creds(|creds| creds["me"]["id"] = json!("1@g.us")).contains("me.id"));
    assert!(creds(|creds| creds["me"]["lid"] = json!("x")).contains("me.lid"));
    assert!(creds(|creds| creds["noiseKey"]["private"]["data"] = json!("AAAA")).contains("noiseKey"));
    assert!(creds(|creds| creds["registrationId"] = json!(-1)).contains("registrationId"));
    assert!(creds(|creds| creds["nextPreKeyId"] = json!(16_777_216)).contains("nextPreKeyId"));
    assert!(creds(|creds| creds["firstUnuploadedPreKeyId"] = json!(0)).contains("firstUnuploadedPreKeyId"));
    assert!(creds(|creds| creds["advSecretKey"] = json!("AAAA")).contains("advSecretKey"));
    assert!(
        creds(|creds| creds["signedPreKey"]["signature"]["data"] = json!("AAAA")).contains("signedPreKey")
    );
    let swapped = |creds: &mut Value| creds["signedIdentityKey"] = creds["noiseKey"].clone();
    assert!(refusal(edited("seven_lid.json", "creds.json", swapped)).contains("does not fit"));
    let forged = |creds: &mut Value| {
        creds["account"]["accountSignature"] = creds["account"]["deviceSignature"].clone()
    };
    assert!(refusal(edited("seven_lid.json", "creds.json", forged)).contains("account does not fit"));
}

#[test]
fn a_damaged_file_costs_what_it_held_and_is_named() {
    let before = folder("seven_lid.json");
    let whole = load(before.clone().into_iter(), Freshness::Clean).unwrap();
    for name in before.keys().filter(|name| *name != "creds.json" && !name.starts_with("tctoken-__")) {
        for damage in [&b""[..], b"{", b"null", b"[[[]]]", b"{\"type\":\"Buffer\",\"data\":7}", b"\"\xff\""] {
            let mut folder = before.clone();
            folder.insert(name.clone(), damage.to_vec());
            let loaded = load(folder.into_iter(), Freshness::Clean).unwrap();
            let refused: Vec<&String> = loaded.report.refused.iter().map(|(name, _)| name).collect();
            assert_eq!(refused, [name], "{damage:?}");
            assert!(loaded.writes.len() <= whole.writes.len());
        }
    }
}

#[test]
fn every_truncation_of_a_file_is_refused() {
    let before = folder("six_lid.json");
    for (name, bytes) in before.iter().filter(|(name, _)| !name.starts_with("pre-key")) {
        for len in (0..bytes.len()).step_by(7) {
            let mut folder = before.clone();
            folder.insert(name.clone(), bytes[..len].to_vec());
            match load(folder.into_iter(), Freshness::Clean) {
                Ok(loaded) => assert_eq!(loaded.report.refused.len(), 1, "{name} at {len}"),
                Err(_) => assert_eq!(name, "creds.json"),
            }
        }
    }
}

#[test]
fn names_that_say_nothing_are_refused_or_left_alone() {
    let mut before = folder("seven_lid.json");
    let key = before.iter().find(|(name, _)| name.starts_with("pre-key-")).unwrap().1.clone();
    let session = before["session-100000000000003_1.0.json"].clone();
    let refused = [
        ("pre-key-0.json", &key),
        ("pre-key-16777216.json", &key),
        ("pre-key-x.json", &key),
        ("session-a.b.json", &session),
        ("session-1.json", &session),
        ("sender-key-1@g.us.json", &key),
        ("tctoken-1@g.us.json", &key),
        ("app-state-sync-key-*.json", &key),
    ];
    for (name, bytes) in refused {
        before.insert(name.to_owned(), bytes.clone());
    }
    for name in ["session-.json", "creds.json.bak", "pre-key-5", "lid.json", ".creds.json"] {
        before.insert(name.to_owned(), key.clone());
    }
    let loaded = load(before.into_iter(), Freshness::Clean).unwrap();
    let mut names: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let got: Vec<&str> = loaded.report.refused.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(got, names, "{:?}", loaded.report.refused);
    assert_eq!(loaded.report.kept.len(), 5);
}

#[test]
fn a_session_that_contradicts_itself_is_refused() {
    let name = "session-100000000000003_1.0.json";
    let refused = |edit: &dyn Fn(&mut Value)| {
        let folder = edited("seven_lid.json", name, |record| {
            let sessions = record["_sessions"].as_object_mut().unwrap();
            sessions.values_mut().for_each(edit);
        });
        let mut loaded = load(folder.into_iter(), Freshness::Clean).unwrap();
        assert_eq!(loaded.report.refused.len(), 1);
        loaded.report.refused.remove(0).1
    };
    let other = json!("BQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let ratchet = |state: &mut Value| state["currentRatchet"]["ephemeralKeyPair"]["pubKey"] = other.clone();
    assert!(refused(&ratchet).contains("ephemeralKeyPair does not fit"));
    assert!(refused(&|state| state["indexInfo"]["baseKeyType"] = json!(3)).contains("baseKeyType"));
    assert!(refused(&|state| state["currentRatchet"]["rootKey"] = json!("AAAA")).contains("rootKey"));
    let first = |state: &mut Value, edit: &dyn Fn(&mut Value)| {
        state["_chains"].as_object_mut().unwrap().values_mut().for_each(edit);
    };
    let counter = |n: i64| move |chain: &mut Value| chain["chainKey"]["counter"] = json!(n);
    assert!(refused(&|state| first(state, &counter(-2))).contains("counter"));
    assert!(refused(&|state| first(state, &counter(i64::MAX))).contains("counter"));
    assert!(refused(&|state| first(state, &|chain| chain["chainType"] = json!(0))).contains("chainType"));
    assert!(
        refused(&|state| first(state, &|chain| chain["messageKeys"] = json!({ "-1": "" })))
            .contains("messageKeys")
    );
    let mut folder = folder("seven_lid.json");
    folder.insert(name.to_owned(), br#"{"_sessions":{},"version":"v2"}"#.to_vec());
    let loaded = load(folder.into_iter(), Freshness::Clean).unwrap();
    assert_eq!(loaded.report.refused[0].1, "its format is unknown");
}

#[test]
fn damaged_rows_are_an_error_and_leave_the_file_that_is_there() {
    let (_, mut store) = loaded(&folder("seven_lid.json"), Freshness::Clean);
    for table in [Table::Credentials, Table::Session, Table::SenderKey, Table::PreKey, Table::TcToken] {
        let key = store.keys(table, "").unwrap().remove(0);
        store.put(table, key.as_str(), vec![0xff; 3]);
        let name = files_of(table, &key).remove(0);
        assert!(matches!(render(&name, &store), Err(RenderError::Damaged(_))), "{name}");
    }
}
