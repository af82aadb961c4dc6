//! The S3 store where things go wrong: wrong keys, a missing bucket, TLS, clocks, a server that is down, answers that are
//! cut, lost, late or wrong, and a server that ignores conditions.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use common::{
    objects::{
        OwnMinio, S3Server,
        careless::{Careless, Carelessness},
        free_address, minio, radosgw,
    },
    proxy::{Fault, FaultProxy, Plan},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use whatsapp_worker::{
    config::{S3Config, Secret},
    storage::object::{Condition, Conditions, ObjectError, ObjectStore as _, s3::S3Store, self_test},
};

fn open(config: &S3Config) -> S3Store {
    S3Store::open(config).unwrap()
}

/// A store behind a proxy, and the same store without it.
fn behind_proxy(server: &S3Server, bucket: &str) -> (FaultProxy, S3Store, S3Store) {
    let proxy = FaultProxy::start(server.address);
    let harmed = open(&server.config_at(proxy.address, bucket));
    let direct = open(&server.config(bucket));
    direct.put("ready", b"", "text/plain").unwrap();
    (proxy, harmed, direct)
}

/// One line, and these words in it.
fn assert_says(error: &ObjectError, words: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    for word in words {
        assert!(text.contains(word), "{word} is missing in: {text}");
    }
}

#[test]
fn a_wrong_secret_or_key_is_told_as_such() {
    for server in [minio(), radosgw()] {
        let wrong_secret = S3Config { secret_key: Secret::new("wrong"), ..server.config("keys") };
        let error = self_test(&open(&wrong_secret)).unwrap_err();
        assert!(matches!(error, ObjectError::Credentials { .. }), "{error}");
        assert_says(&error, &["SignatureDoesNotMatch", "MINIO_SECRET_KEY"]);
        assert!(!error.is_transient());
        let wrong_key = S3Config { access_key: "nobody".to_owned(), ..server.config("keys") };
        let error = self_test(&open(&wrong_key)).unwrap_err();
        assert_says(&error, &["InvalidAccessKeyId", "MINIO_ACCESS_KEY"]);
    }
}

#[test]
fn a_missing_bucket_is_made_by_the_first_write_and_named_before() {
    for (server, region) in [(minio(), "us-east-1"), (radosgw(), "us-east-1"), (radosgw(), "eu-central-1")] {
        let bucket = format!("new-{region}-{}", free_address().port());
        let store = open(&S3Config { region: region.to_owned(), ..server.config(&bucket) });
        let error = store.get("a").err().unwrap();
        assert!(matches!(error, ObjectError::NoBucket { .. }), "{error}");
        assert_says(&error, &[&bucket, "MINIO_BUCKET_NAME"]);
        assert!(store.list("").is_err());
        assert!(store.put_if("a", b"1", &Condition::Absent).unwrap().is_some());
        assert_eq!(store.get("a").unwrap().unwrap().bytes, b"1");
        // Another worker makes the same bucket: that is fine.
        open(&S3Config { region: region.to_owned(), ..server.config(&bucket) })
            .put("b", b"2", "text/plain")
            .unwrap();
    }
}

#[test]
fn the_wrong_region_is_told_where_the_server_minds() {
    let config = S3Config { region: "mars-1".to_owned(), ..minio().config("region") };
    let error = open(&config).get("a").err().unwrap();
    assert_says(&error, &["MINIO_REGION"]);
}

#[test]
fn clocks_that_differ_are_told_with_the_difference() {
    for server in [minio(), radosgw()] {
        open(&server.config("clock")).put("a", b"1", "text/plain").unwrap();
        let ahead = S3Store::open_with_clock(&server.config("clock"), || {
            SystemTime::now() + Duration::from_secs(3600)
        });
        let error = ahead.unwrap().get("a").err().unwrap();
        let ObjectError::ClockSkew { seconds: Some(seconds), .. } = error else { panic!("{error}") };
        assert!((3590..=3610).contains(&seconds), "{seconds}");
        assert_says(&error, &["ahead", "NTP"]);
        let behind = S3Store::open_with_clock(&server.config("clock"), || {
            SystemTime::now() - Duration::from_secs(3600)
        });
        assert_says(&behind.unwrap().put("a", b"2", "text/plain").unwrap_err(), &["behind", "clock"]);
    }
}

#[test]
fn a_bucket_over_its_quota_is_full() {
    let small = S3Config {
        access_key: "small-key".to_owned(),
        secret_key: Secret::new("small-secret"),
        ..radosgw().config("small-bucket")
    };
    let store = open(&small);
    let refused = (0..20).find_map(|number| store.put(&format!("object-{number}"), b"x", "text/plain").err());
    let error = refused.expect("three objects are the limit");
    assert!(matches!(error, ObjectError::Full { .. }) && error.is_transient(), "{error}");
    assert_says(&error, &["QuotaExceeded", "quota"]);
}

#[test]
fn a_key_that_may_not_use_the_bucket_is_denied() {
    open(&radosgw().config("of-tester")).put("a", b"1", "text/plain").unwrap();
    let stranger = S3Config {
        access_key: "small-key".to_owned(),
        secret_key: Secret::new("small-secret"),
        ..radosgw().config("of-tester")
    };
    let error = open(&stranger).get("a").err().unwrap();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error}");
    assert_says(&error, &["AccessDenied"]);
    assert!(!error.is_transient());
}

#[test]
fn a_stopped_server_is_unreachable_and_has_everything_when_it_is_back() {
    let mut own = OwnMinio::start();
    let store = open(&own.server.config("stopped"));
    let version = store.put("sessions/a/creds.json", b"kept", "application/json").unwrap();
    own.stop();
    let error = store.get("sessions/a/creds.json").err().unwrap();
    assert!(matches!(error, ObjectError::Unreachable { .. }), "{error}");
    assert!(error.is_transient());
    assert_says(&error, &["refused", "MINIO_ENDPOINT"]);
    assert!(store.put_if("x", b"", &Condition::Absent).is_err());
    own.start_again();
    let object = store.get("sessions/a/creds.json").unwrap().unwrap();
    assert_eq!((object.bytes.as_slice(), object.version), (b"kept".as_slice(), version));
}

#[test]
fn a_name_without_an_address_is_told_as_such() {
    let config =
        S3Config { endpoint: "http://no-such-host.invalid:9000".to_owned(), ..minio().config("dns") };
    let error = open(&config).get("a").err().unwrap();
    assert!(matches!(error, ObjectError::Resolve { .. }), "{error}");
    assert_says(&error, &["no-such-host.invalid", "DNS"]);
}

#[test]
fn tls_is_checked_against_the_ca_file() {
    let own = OwnMinio::start_with_tls();
    let https = |ca_file| S3Config {
        endpoint: format!("https://{}", own.server.address),
        ca_file,
        ..own.server.config("tls")
    };
    assert_eq!(self_test(&open(&https(own.ca_file.clone()))).unwrap(), Conditions::Enforced);
    let error = open(&https(None)).get("a").err().unwrap();
    assert!(matches!(error, ObjectError::Tls { .. }), "{error}");
    assert_says(&error, &["UnknownIssuer", "MINIO_CA_FILE"]);
    // And the two ways to take one for the other.
    let plain = own.server.config("tls");
    assert_says(&open(&plain).get("a").err().unwrap(), &["MINIO_USE_SSL"]);
    let tls_to_plain = S3Config { endpoint: format!("https://{}", minio().address), ..minio().config("tls") };
    let error = open(&tls_to_plain).get("a").err().unwrap();
    assert!(matches!(error, ObjectError::Tls { .. }), "{error}");
}

#[test]
fn passing_trouble_is_waited_out_and_lasting_trouble_is_told() {
    let (proxy, store, direct) = behind_proxy(minio(), "trouble");
    direct.put("a", &[7; 5000], "text/plain").unwrap();
    let troubles = [
        (Fault::Refuse(500), "500"),
        (Fault::Refuse(503), "503"),
        (Fault::Fail(502), "502"),
        (Fault::Refuse(429), "429"),
        (Fault::ResetBefore, "broke off"),
        (Fault::ResetAfter, "broke off"),
        (Fault::Truncate, "broke off"),
    ];
    for (fault, words) in troubles {
        proxy.set_plan(Plan::each([fault, fault]));
        assert_eq!(store.get("a").unwrap().unwrap().bytes, [7; 5000], "{fault:?}");
        proxy.set_plan(Plan::each([fault]));
        assert!(store.list("").unwrap().iter().any(|info| info.key == "a"), "{fault:?}");
        if fault != Fault::Truncate {
            // The answer to a write has no body to cut.
            proxy.set_plan(Plan::each([fault]));
            store.put("b", b"written", "text/plain").unwrap();
            proxy.set_plan(Plan::each([fault]));
            store.delete("b").unwrap();
        }
        proxy.set_plan(Plan::Always(fault));
        let before = proxy.exchanges();
        let error = store.get("a").err().unwrap();
        assert_says(&error, &[words]);
        assert!(error.is_transient(), "{error}");
        assert_eq!(proxy.exchanges() - before, 3, "{fault:?}");
    }
}

#[test]
fn a_content_that_is_not_what_was_written_is_never_handed_out() {
    for server in [minio(), radosgw()] {
        let (proxy, store, direct) = behind_proxy(server, "corrupt");
        let version = direct.put("a", &[7; 5000], "text/plain").unwrap();
        proxy.set_plan(Plan::each([Fault::Corrupt]));
        assert_eq!(store.get("a").unwrap().unwrap().bytes, [7; 5000]);
        proxy.set_plan(Plan::Always(Fault::Corrupt));
        let error = store.get("a").err().unwrap();
        assert!(matches!(error, ObjectError::Damaged { .. }), "{error}");
        assert_eq!(direct.get("a").unwrap().unwrap().version, version);
    }
}

#[test]
fn a_conditional_write_whose_answer_is_lost_is_an_error_and_not_a_lost_race() {
    let (proxy, store, direct) = behind_proxy(minio(), "lost-answer");
    let mut holder = None;
    for (round, fault) in [Fault::ResetAfter, Fault::Fail(500)].into_iter().enumerate() {
        let key = format!("lease-{round}");
        proxy.set_plan(Plan::Always(fault));
        let before = proxy.exchanges();
        assert!(store.put_if(&key, b"mine", &Condition::Absent).is_err(), "{fault:?}");
        assert_eq!(proxy.exchanges() - before, 1, "it must not be sent twice");
        let written = direct.get(&key).unwrap().expect("the server did it");
        assert_eq!(written.bytes, b"mine");
        holder = Some(written.version);
    }
    proxy.set_plan(Plan::Always(Fault::ResetBefore));
    assert!(store.put_if("lease-1", b"again", &Condition::Is(holder.unwrap())).is_err());
    assert_eq!(direct.get("lease-1").unwrap().unwrap().bytes, b"mine");
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let (proxy, store, direct) = behind_proxy(minio(), "stall");
    direct.put("a", b"1", "text/plain").unwrap();
    proxy.set_plan(Plan::Always(Fault::Stall));
    let start = Instant::now();
    let error = store.put_if("a", b"2", &Condition::Absent).unwrap_err();
    assert!(matches!(error, ObjectError::Timeout { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    proxy.set_plan(Plan::each([Fault::Delay(Duration::from_secs(2))]));
    assert_eq!(store.get("a").unwrap().unwrap().bytes, b"1");
}

#[test]
fn whatever_the_network_does_success_means_success() {
    let seed = 20_261_124;
    for server in [minio(), radosgw()] {
        let (proxy, store, direct) = behind_proxy(server, "seeded");
        let faults = [
            Fault::Refuse(503),
            Fault::Fail(500),
            Fault::ResetBefore,
            Fault::ResetAfter,
            Fault::Truncate,
            Fault::Corrupt,
            Fault::Delay(Duration::from_millis(50)),
        ];
        proxy.set_plan(Plan::seeded(seed, 40, &faults));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // What an object may be now: more than one after a write that failed, perhaps half-way.
        let mut possible: BTreeMap<String, Vec<Option<Vec<u8>>>> = BTreeMap::new();
        let (mut done, mut failed) = (0, 0);
        for step in 0..150u32 {
            let key = format!("key-{}", random.next_u32() % 5);
            let now = possible
                .entry(key.clone())
                .or_insert_with(|| vec![direct.get(&key).unwrap().map(|object| object.bytes)]);
            let content = format!("step {step} ").into_bytes().repeat(50);
            let (wanted, result) = match random.next_u32() % 3 {
                0 => (Some(content.clone()), store.put(&key, &content, "text/plain").map(drop)),
                1 => (None, store.delete(&key)),
                _ => {
                    match store.get(&key) {
                        Ok(object) => {
                            let seen = object.map(|object| object.bytes);
                            assert!(
                                now.contains(&seen),
                                "step {step}, seed {seed}: {key} is none of what it may be"
                            );
                            *now = vec![seen];
                            done += 1;
                        }
                        Err(error) => {
                            assert!(
                                error.is_transient() || matches!(error, ObjectError::Damaged { .. }),
                                "{error}"
                            );
                            failed += 1;
                        }
                    }
                    continue;
                }
            };
            match result {
                Ok(()) => {
                    *now = vec![wanted];
                    done += 1;
                }
                Err(error) => {
                    assert!(error.is_transient(), "step {step}, seed {seed}: {error}");
                    now.push(wanted);
                    failed += 1;
                }
            }
        }
        for (key, possible) in possible {
            let seen = direct.get(&key).unwrap().map(|object| object.bytes);
            assert!(possible.contains(&seen), "seed {seed}: {key}");
        }
        assert!(proxy.faults() > 50 && done > 100, "{} faults, {done} done, {failed} failed", proxy.faults());
    }
}

#[test]
fn a_server_that_ignores_conditions_is_found_out() {
    let ignoring = Careless::start(Carelessness::Ignores);
    let Conditions::Ignored { how } = self_test(&open(&ignoring.server.config("bucket"))).unwrap() else {
        panic!("it was not noticed");
    };
    assert!(how.contains("If-None-Match"), "{how}");
    let racing = Careless::start(Carelessness::Races);
    let store = open(&racing.server.config("bucket"));
    let Conditions::Ignored { how } = self_test(&store).unwrap() else { panic!("it was not noticed") };
    assert!(how.contains("at once"), "{how}");
    assert!(store.list("temp/").unwrap().is_empty(), "nothing is left");
}

#[test]
fn a_port_that_is_no_s3_server_is_told_as_such() {
    let http = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    let address: SocketAddr = http.server_addr().to_ip().unwrap();
    let serving = Arc::clone(&http);
    let server = std::thread::spawn(move || {
        while let Ok(request) = serving.recv() {
            let _ = request.respond(tiny_http::Response::from_string("<html>hello</html>"));
        }
    });
    let error = self_test(&open(&minio().config_at(address, "web"))).unwrap_err();
    assert_says(&error, &["is this an S3 server?"]);
    http.unblock();
    server.join().unwrap();
}
