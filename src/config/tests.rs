use super::*;

fn config(vars: &[(&str, &str)]) -> Result<(Config, Vec<String>), ConfigProblems> {
    Config::from_env(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn nothing_set_is_a_local_worker_with_the_documented_defaults() {
    let (config, warnings) = config(&[]).unwrap();
    assert_eq!(config.bind.to_string(), "127.0.0.1:8001");
    assert_eq!((config.max_sessions, config.api_auth), (50, ApiAuth::Auto));
    assert_eq!(config.state_dir, PathBuf::from("state"));
    assert_eq!(config.whatsapp.url, "wss://web.whatsapp.com/ws/chat");
    assert_eq!(config.whatsapp.version, version(DEFAULT_VERSION_TEXT).unwrap());
    assert_eq!(config.send_dedupe_window, None);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_token_opens_the_worker_and_no_token_keeps_it_local() {
    let (open, _) = config(&[("WORKER_AUTH_TOKEN", "your-worker-secret-token")]).unwrap();
    assert_eq!(open.bind.to_string(), "0.0.0.0:8001");
    let problems = config(&[("WORKER_BIND", "0.0.0.0")]).err().unwrap();
    assert_eq!(problems.0[0].name, "WORKER_BIND");
    let (off, warnings) = config(&[("WORKER_BIND", "0.0.0.0"), ("WORKER_API_AUTH", "off")]).unwrap();
    assert_eq!(off.bind.ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    assert!(warnings[0].contains("everybody"), "{warnings:?}");
    assert!(config(&[("WORKER_API_AUTH", "required")]).is_err());
}

#[test]
fn all_problems_are_told_at_once_and_secrets_are_not() {
    let problems = config(&[
        ("WORKER_PORT", "70000"),
        ("WORKER_MAX_SESSIONS", "0"),
        ("WORKER_API_AUTH", "maybe"),
        ("WORKER_AUTH_TOKEN", "t0p s3cret"),
        ("WORKER_ENDPOINT", "http://worker:8001/"),
        ("WORKER_ID", "a b"),
        ("LOG_FORMAT", "xml"),
        ("WHATSAPP_URL", "ws://127.0.0.1"),
        ("WHATSAPP_NOISE_ROOT_KEY", "12"),
        ("WHATSAPP_CA_FILE", "/does/not/exist"),
        ("WHATSAPP_VERSION", "2.3000"),
        ("WHATSAPP_PROXY", "https://me:pr0xyw0rd@proxy"),
        ("WORKER_HTTP_THREADS", "x"),
    ])
    .err()
    .unwrap();
    let names: Vec<&str> = problems.0.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names.len(), 13, "{names:?}");
    assert!(!problems.to_string().contains("s3cret"), "{problems}");
    assert!(!problems.to_string().contains("pr0xyw0rd"), "{problems}");
}

#[test]
fn secrets_come_from_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "from-a-file\n").unwrap();
    let path = path.to_str().unwrap();
    let (loaded, warnings) = config(&[("WORKER_AUTH_TOKEN_FILE", path)]).unwrap();
    assert_eq!(loaded.auth_token.as_deref(), Some("from-a-file"));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(config(&[("WORKER_AUTH_TOKEN_FILE", path), ("WORKER_AUTH_TOKEN", "in-the-env")]).is_err());
    assert!(config(&[("WORKER_AUTH_TOKEN_FILE", "/does/not/exist")]).is_err());
}

#[test]
fn unknown_names_warn_with_the_nearest_known_one() {
    let (_, warnings) = config(&[
        ("WORKER_PROT", "1"),
        ("WHATSAPP_URLS", "x"),
        ("MINIO_ENDPONT", "localhost:9000"),
        ("MEDIA_MAX_SIZE", "1"),
        ("BACKEND_QQQQQQQQQQQQQQ", "x"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(
        warnings,
        [
            "set, but not used by this version yet: MEDIA_MAX_SIZE",
            "unknown setting BACKEND_QQQQQQQQQQQQQQ",
            "unknown setting MINIO_ENDPONT; did you mean MINIO_ENDPOINT?",
            "unknown setting WHATSAPP_URLS; did you mean WHATSAPP_URL?",
            "unknown setting WORKER_PROT; did you mean WORKER_PORT?",
        ]
    );
}

#[test]
fn systemds_state_directory_goes_first() {
    let (loaded, _) = config(&[("STATE_DIRECTORY", "/var/lib/w:/x"), ("STATE_DIR", "/tmp/y")]).unwrap();
    assert_eq!(loaded.state_dir, PathBuf::from("/var/lib/w"));
}

#[test]
fn a_noise_root_is_read_as_hex() {
    let (loaded, _) = config(&[("WHATSAPP_NOISE_ROOT_KEY", &"0aF1".repeat(16))]).unwrap();
    assert_eq!(loaded.whatsapp.noise_root.0[..2], [0x0a, 0xf1]);
    assert!(config(&[("WHATSAPP_NOISE_ROOT_KEY", &"é".repeat(32))]).is_err());
}

#[test]
fn every_setting_is_listed_once() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        assert!(SETTINGS[index + 1..].iter().all(|other| other.name != setting.name), "{}", setting.name);
        assert!(!NOT_YET.contains(&setting.name));
    }
}
