use super::help::spelling;
use super::*;

fn words(line: &str) -> impl Iterator<Item = OsString> {
    line.split_whitespace().map(OsString::from).collect::<Vec<_>>().into_iter()
}

fn parsed(line: &str) -> Invocation {
    parse(words(line)).unwrap_or_else(|failure| panic!("{line}: {}", failure.error))
}

fn refused(line: &str) -> (String, u8) {
    match parse(words(line)) {
        Ok(invocation) => panic!("{line}: {invocation:?}"),
        Err(failure) => (failure.error.to_string(), failure.exit_code),
    }
}

#[test]
fn what_conmon_sends() {
    let found = parsed(
        "--log-format=json --log=/l --cgroup-manager disabled --root /r --debug create --bundle /b --pid-file /p \
         --no-pivot --no-new-keyring --preserve-fds 2 --console-socket /s web",
    );
    assert_eq!(found.global.root, Some("/r".into()));
    assert_eq!(found.global.log, Target::File("/l".into()));
    assert_eq!(found.global.log_format, Format::Json);
    assert!(matches!(found.global.driver, Driver::None));
    assert!(found.global.debug);
    let Command::Create(create) = found.command else { panic!() };
    assert_eq!((create.id.as_str(), create.bundle.to_str(), create.preserve_fds), ("web", Some("/b"), 2));
    assert_eq!((create.pid_file, create.console_socket), (Some("/p".into()), Some("/s".into())));
    assert!(create.no_pivot && create.no_new_keyring && !create.overlay);
}

#[test]
fn what_containerd_sends() {
    for (value, rootless) in [("=true", Some(true)), ("=false", Some(false)), (" auto", None)] {
        let found = parsed(&format!("--root=/r --log f --log-format json --rootless{value} kill --all web 9"));
        assert_eq!(found.global.rootless, rootless);
        let kill = Kill { id: "web".into(), signal: 9, all: true, regex: false };
        assert!(matches!(found.command, Command::Kill(found) if found == kill));
    }
    let Command::Ps(ps) = parsed("ps --format json web").command else { panic!() };
    assert_eq!((ps.id.as_str(), ps.format, ps.args.len()), ("web", Listing::Json, 0));
    assert!(matches!(parsed("--systemd-cgroup=false list --format=json").command, Command::List(_)));
}

#[test]
fn events_every_five_seconds_or_once() {
    for (line, seconds, stats) in [
        ("events web", 5, false),
        ("events --interval=5s web", 5, false),
        ("events web -interval 1m30s", 90, false),
        ("events --stats web", 5, true),
    ] {
        let Command::Events(events) = parsed(line).command else { panic!() };
        let expected = Events { id: "web".into(), interval: Duration::from_secs(seconds), stats };
        assert_eq!(events, expected, "{line}");
    }
}

#[test]
fn one_dash_before_a_long_name_is_as_good_as_two() {
    for line in ["-log-level=debug -root /r create -bundle /b -overlay web", "--root=/r create web -bundle=/b -overlay"]
    {
        let found = parsed(line);
        assert_eq!(found.global.root, Some("/r".into()), "{line}");
        let Command::Create(create) = found.command else { panic!() };
        assert_eq!((create.id.as_str(), create.bundle.to_str(), create.overlay), ("web", Some("/b"), true), "{line}");
    }
    for line in ["run -help", "--usage", "list --usage", "delete -usage"] {
        assert!(matches!(parsed(line).command, Command::Help(_)), "{line}");
    }
    // Letters stay letters, and what is no option stays as it is.
    assert!(matches!(parsed("exec -dt web ls").command, Command::Exec(exec) if exec.detach && exec.tty));
    assert!(matches!(parsed("delete -- -force").command, Command::Delete(delete) if delete.id == "-force"));
    let Command::Exec(exec) = parsed("exec web ls -tty").command else { panic!() };
    assert_eq!(exec.args, ["ls", "-tty"]);
}

#[test]
fn options_stand_before_and_after_the_id() {
    for line in ["create -b /b --overlay=1 web", "create web -b/b --overlay", "create -b=/b web --overlay=true"] {
        let Command::Create(create) = parsed(line).command else { panic!() };
        assert_eq!((create.id.as_str(), create.bundle.to_str()), ("web", Some("/b")), "{line}");
        assert!(create.overlay, "{line}");
    }
    let Command::Create(create) = parsed("create web").command else { panic!() };
    assert_eq!(create.bundle.to_str(), Some("."));
    assert!(matches!(parsed("delete web -f").command, Command::Delete(delete) if delete.force));
}

#[test]
fn what_follows_the_id_of_exec_belongs_to_the_program() {
    for (line, args) in [
        ("exec -it=x web ls -l --all", None),
        ("exec -td web ls -l --all", Some(vec!["ls", "-l", "--all"])),
        ("exec --tty web -- ls -- -d", Some(vec!["ls", "--", "-d"])),
        ("exec -t -- web ls -d", Some(vec!["ls", "-d"])),
        ("exec -t web --help", Some(vec!["--help"])),
        ("exec -t -p /process.json web", Some(vec![])),
        ("exec -t web", None),
    ] {
        match (parse(words(line)), args) {
            (Ok(Invocation { command: Command::Exec(exec), .. }), Some(args)) => {
                assert_eq!((exec.id.as_str(), exec.args), ("web", args.into_iter().map(Into::into).collect()));
                assert!(exec.tty, "{line}");
            }
            (Err(_), None) => {}
            (found, _) => panic!("{line}: {found:?}"),
        }
    }
    let Command::Exec(exec) =
        parsed("exec -e A=1 --env B -e= -g 1 -g 2 -u 1:2 --cgroup cpu:x -c CAP_KILL web ls").command
    else {
        panic!()
    };
    assert_eq!(exec.env, ["A=1", "B", ""]);
    assert_eq!((exec.additional_gids, exec.cap), (vec!["1".into(), "2".into()], vec!["CAP_KILL".into()]));
    assert_eq!((exec.user, exec.cgroup), (Some("1:2".into()), vec!["cpu:x".into()]));
    assert_eq!(parsed("exec web ls").command.failure_code(), 255);
    assert_eq!(parsed("state web").command.failure_code(), 1);
}

#[test]
fn run_takes_options_after_the_id_and_then_a_program() {
    for (line, args) in [
        ("run -d -b /b web", vec![]),
        ("run web -d --bundle /b", vec![]),
        ("run -b /b web -d sh -c -d", vec!["sh", "-c", "-d"]),
        ("run -d -b /b web -- -b", vec!["-b"]),
        ("run -d -b /b web sh -- x", vec!["sh", "--", "x"]),
    ] {
        let Command::Run(run) = parsed(line).command else { panic!() };
        assert_eq!((run.create.id.as_str(), run.create.bundle.to_str()), ("web", Some("/b")), "{line}");
        assert!(run.detach, "{line}");
        assert_eq!(run.args, args, "{line}");
    }
}

#[test]
fn what_engines_send_to_update() {
    // containerd, podman, and by hand.
    for (line, resources) in [
        ("update --resources - web", Some("-")),
        ("update --resources=- web", Some("-")),
        ("update --resources=/r.json web", Some("/r.json")),
        ("update web -r -", Some("-")),
        ("update web --resources=", None),
    ] {
        let Command::Update(update) = parsed(line).command else { panic!() };
        assert_eq!((update.id.as_str(), update.resources), ("web", resources.map(PathBuf::from)), "{line}");
        assert_eq!((update.limits, update.obsolete.len()), (LimitOptions::default(), 0), "{line}");
    }
}

#[test]
fn limits_of_update_stand_before_and_after_the_id() {
    let line = "update --memory 100M --memory-swap -1 --cpu-quota=-1 web --cpu-share 512 --cpu-period 50000 \
                --cpu-burst 100 --cpu-idle 0 --cpu-rt-period 1000 --cpu-rt-runtime -1 --cpuset-cpus 0-1 \
                --cpuset-mems 0 --pids-limit 0 --blkio-weight 10 --memory-reservation 1g --kernel-memory=1 \
                --kernel-memory-tcp -1";
    let Command::Update(update) = parsed(line).command else { panic!() };
    let expected = LimitOptions {
        memory: Some(100 << 20),
        memory_reservation: Some(1 << 30),
        memory_swap: Some(-1),
        cpu_share: Some(512),
        cpu_quota: Some(-1),
        cpu_period: Some(50000),
        cpu_burst: Some(100),
        cpu_idle: Some(0),
        cpu_rt_period: Some(1000),
        cpu_rt_runtime: Some(-1),
        cpuset_cpus: Some("0-1".into()),
        cpuset_mems: Some("0".into()),
        pids_limit: Some(0),
        blkio_weight: Some(10),
    };
    assert_eq!((update.id.as_str(), update.limits), ("web", expected));
    assert_eq!(update.obsolete, ["--kernel-memory", "--kernel-memory-tcp"]);
    // An empty value is none, as in runc.
    let Command::Update(update) = parsed("update web --memory= --cpuset-cpus= --l3-cache-schema=").command else {
        panic!()
    };
    assert_eq!(update.limits, LimitOptions::default());
}

#[test]
fn refusals_say_why_and_have_the_exit_codes_of_runc() {
    for (line, text, code) in [
        ("bogus", "unknown command \"bogus\" (kelson help lists the commands)", 3),
        ("help bogus", "unknown command \"bogus\" (kelson help lists the commands)", 3),
        ("checkpoint --help", "the command \"checkpoint\" is not supported yet", 1),
        ("restore --lsm-mount-context", "the command \"restore\" is not supported yet", 1),
        ("help mounts", "the command \"mounts\" is not supported yet", 1),
        ("create --bundle", "flag needs an argument: --bundle", 1),
        ("--root", "flag needs an argument: --root", 1),
        ("create --bundle /b", "\"create\" requires an argument: the container's id (kelson create [options] ID)", 1),
        ("state a b", "unexpected argument \"b\" (kelson state [options] ID)", 1),
        ("list x", "unexpected argument \"x\" (kelson list [options])", 1),
        ("run --nope x", "unknown option --nope", 1),
        ("state --root /r x", "unknown option --root (a global option: put it before the command)", 1),
        ("--nope", "unknown option --nope", 1),
        ("--root / list", "--root: / cannot hold the containers' states", 1),
        ("--log-format xml list", "--log-format: unknown format \"xml\" (text or json)", 1),
        ("--rootless=bla list", "--rootless: \"bla\" is not true, false or auto", 1),
        (
            "--cgroup-manager x list",
            "--cgroup-manager: unknown cgroup manager \"x\" (cgroupfs, systemd or disabled)",
            1,
        ),
        ("run -d --keep=perhaps x", "--keep: \"perhaps\" is neither true nor false", 1),
        ("create --preserve-fds -1 x", "--preserve-fds: \"-1\" is not a number of descriptors", 1),
        ("list -f xml", "--format: unknown format \"xml\" (table or json)", 1),
        ("update", "\"update\" requires an argument: the container's id (kelson update [options] ID)", 1),
        ("update web --memory 1x", "--memory: \"1x\" is not a size (bytes, 512k, 100M, 1G, or -1)", 1),
        ("update --cpu-share -1 web", "--cpu-share: \"-1\" is not a number, or out of range", 1),
        ("update --pids-limit 5k web", "--pids-limit: \"5k\" is not a number, or out of range", 1),
        ("update --blkio-weight 70000 web", "--blkio-weight: \"70000\" is not a number, or out of range", 1),
        (
            "update --l3-cache-schema L3:0=f web",
            "--l3-cache-schema: Intel RDT is not supported (leave the option out)",
            1,
        ),
        ("update web --mem-bw-schema MB:0=20", "--mem-bw-schema: Intel RDT is not supported (leave the option out)", 1),
        ("events --interval 0s web", "--interval: duration interval must be greater than 0", 1),
        ("events --interval 5 web", "--interval: \"5\" is not a duration (a number and a unit: 500ms, 5s, 1m30s)", 1),
        ("kill web FOO", "unknown signal \"FOO\"", 1),
        ("exec web", "exec args cannot be empty (kelson exec [options] ID COMMAND [ARGS...])", 255),
        ("exec", "\"exec\" requires an argument: the container's id (kelson exec [options] ID COMMAND [ARGS...])", 1),
    ] {
        assert_eq!(refused(line), (text.into(), code), "{line}");
    }
}

#[test]
fn the_cgroup_manager_is_the_last_that_was_named() {
    for (line, expected) in [
        ("list", Driver::Cgroupfs),
        ("--systemd-cgroup list", Driver::Systemd),
        ("--systemd-cgroup=false list", Driver::Cgroupfs),
        ("--cgroup-manager=systemd list", Driver::Systemd),
        ("--cgroup-manager systemd --cgroup-manager disabled list", Driver::None),
        ("--cgroup-manager disabled --systemd-cgroup list", Driver::Systemd),
    ] {
        assert_eq!(parsed(line).global.driver, expected, "{line}");
    }
}

#[test]
fn a_refusal_knows_where_the_log_is() {
    let failure = parse(words("--log /l --log-format json create --nope")).unwrap_err();
    assert_eq!((failure.global.log, failure.global.log_format), (Target::File("/l".into()), Format::Json));
}

#[test]
fn every_command_and_option_is_in_the_help() {
    let Command::Help(all) = parsed("--help").command else { panic!() };
    assert!(matches!(parsed("").command, Command::Help(text) if text == all));
    assert!(matches!(parsed("help").command, Command::Help(text) if text == all));
    assert!(matches!(parsed("-? kill").command, Command::Help(text) if text == all));
    for opt in GLOBAL {
        assert!(all.contains(&spelling(opt)), "{}", opt.long);
    }
    for entry in COMMANDS {
        assert!(all.contains(&format!("\n  {} ", entry.name)), "{}", entry.name);
        // All words of one are another program's.
        let own = if entry.operands.rest == Rest::All { 1 } else { 4 };
        for line in &["help NAME", "NAME --help", "NAME -h", "NAME -?"][..own] {
            let Command::Help(text) = parsed(&line.replace("NAME", entry.name)).command else { panic!() };
            assert!(text.contains(&usage_line(entry)));
            for opt in entry.options.iter().chain(entry.with_image) {
                assert_eq!(text.contains(&spelling(opt)), !opt.help.is_empty(), "{} {}", entry.name, opt.long);
            }
        }
    }
    for line in ["-v", "-V", "--version", "--debug --version"] {
        assert!(matches!(parsed(line).command, Command::Version));
    }
    assert!(version().starts_with("kelson version "));
}

/// A value that the builder of `opt` takes.
fn sample(opt: &Opt) -> &'static str {
    match (opt.long, opt.takes) {
        ("preserve-fds", _) => "1",
        ("format", _) => "json",
        // These are refused.
        ("l3-cache-schema" | "mem-bw-schema", _) => "",
        // Not with --keep.
        ("rm", _) => "false",
        ("env-file", _) => "/dev/null",
        ("volume", _) => "/a:/b",
        ("mount", _) => "type=tmpfs,target=/a",
        ("tmpfs", _) => "/a",
        ("ulimit", _) => "nofile=1",
        ("device", _) => "/dev/null",
        ("network" | "pid" | "ipc" | "uts" | "userns", _) => "host",
        ("pull", _) => "never",
        ("security-opt", _) => "no-new-privileges",
        ("sysctl" | "label" | "annotation", _) => "a=b",
        ("add-host", _) => "a:10.0.0.1",
        ("dns", _) => "10.0.0.1",
        ("stop-signal", _) => "TERM",
        ("publish", _) => "1:1",
        (_, Takes::Value("BYTES" | "N" | "USEC" | "0|1")) => "1",
        ("interval", _) => "1s",
        (_, Takes::Switch) => "true",
        (_, Takes::Value(_)) => "x",
    }
}

/// The table and the builders name the same options, and no option has two meanings.
#[test]
fn builders_take_every_option_of_the_table() {
    for entry in COMMANDS {
        let table: Vec<&Opt> = entry.options.iter().chain(entry.with_image).copied().collect();
        for (i, opt) in table.iter().enumerate() {
            let others = || table[i + 1..].iter().copied().chain([&HELP]);
            assert!(others().all(|other| other.long != opt.long), "{} {}", entry.name, opt.long);
            assert!(opt.short.is_none() || others().all(|other| other.short != opt.short), "{}", opt.long);
        }
        let (with_bundle, with_image): (Vec<&Opt>, Vec<&Opt>) = match entry.name {
            "run" => (
                entry.options.iter().copied().filter(|opt| opt.long != "image").collect(),
                table.iter().copied().filter(|opt| !["bundle", "config", "overlay"].contains(&opt.long)).collect(),
            ),
            "explain" => (
                entry.options.iter().copied().filter(|opt| opt.long != "image").collect(),
                table.iter().copied().filter(|opt| !["bundle", "config", "overlay"].contains(&opt.long)).collect(),
            ),
            // These are of a container that runs.
            "bundle" => (
                table.iter().copied().filter(|opt| !["name", "rm", "interactive"].contains(&opt.long)).collect(),
                vec![],
            ),
            _ => (table, vec![]),
        };
        for options in [with_bundle, with_image].into_iter().filter(|options| !options.is_empty()) {
            let mut all = Words::default();
            let has_image = options.iter().any(|opt| opt.long == "image");
            all.options.extend(options.iter().map(|opt| (opt.long, sample(opt).into())));
            if !has_image {
                all.operands.extend((0..entry.operands.most).map(|_| "1".into()));
            }
            if has_image || entry.name != "explain" {
                all.rest.push("x".into());
            }
            (entry.build)(&mut all).unwrap();
            assert!(all.options.is_empty(), "{} does not read {:?}", entry.name, all.options);
            assert!(all.operands.is_empty());
            let takes_words = entry.operands.rest != Rest::Refused;
            assert_eq!(all.rest.is_empty(), takes_words, "{}", entry.name);
        }
    }
}

#[test]
fn an_image_is_no_bundle() {
    let image = |line: &str| match parsed(line).command {
        Command::Run(run) => (run.create.id, run.image.map(|image| image.command)),
        other => panic!("{other:?}"),
    };
    assert_eq!(image("run --image busybox --name a -e X=1 sh -c -e"), ("a".into(), Some(words("sh -c -e").collect())));
    assert_eq!(image("run -m 1m --image=busybox --name a -- -x"), ("a".into(), Some(words("-x").collect())));
    assert_eq!(image("run web").1, None);
    // Made up: twelve digits, other ones each time.
    let (first, second) = (image("run --image busybox").0, image("run --image busybox").0);
    assert!(first.len() == 12 && first != second, "{first} {second}");
    for (line, text) in [
        ("run -m 1m web", "--memory needs --image (config.json of the bundle says it otherwise)"),
        ("run --image a -b /b", "--bundle and --image: the image is the bundle"),
        ("run --image a --rm --keep", "--rm and --keep: one of them says what becomes of the container"),
        ("bundle a", "\"bundle\" requires an argument: IMAGE DIR (kelson bundle [options] IMAGE DIR [ARGS...])"),
    ] {
        assert_eq!(refused(line), (text.into(), 1), "{line}");
    }
    let (text, code) = refused("run web --image a");
    assert!(text.starts_with("with --image the container's id is given by --name") && code == 1, "{text}");
}

#[test]
fn every_global_option_is_read() {
    let found =
        parsed("--root /r --log l --log-level info --debug=true --rootless true --cgroup-manager cgroupfs list");
    let global = found.global;
    assert_eq!((global.root, global.log_level), (Some("/r".into()), Some(LevelFilter::Info)));
    assert!(global.debug && global.rootless == Some(true) && matches!(global.driver, Driver::Cgroupfs));
    let named = ["root", "log", "log-format", "log-level", "debug", "cgroup-manager", "systemd-cgroup", "rootless"];
    for opt in GLOBAL {
        assert!(named.contains(&opt.long) || ["help", "version"].contains(&opt.long), "{}", opt.long);
    }
}

#[test]
fn signals_have_names_and_numbers() {
    for (name, number) in [
        ("TERM", Some(15)),
        ("SIGTERM", Some(15)),
        ("sigkill", Some(9)),
        ("9", Some(9)),
        ("0", Some(0)),
        ("64", Some(64)),
        ("IOT", Some(6)),
        ("RTMIN", Some(34)),
        ("SIGRTMIN+1", Some(35)),
        ("RTMIN+30", Some(64)),
        ("rtmax-30", Some(34)),
        ("SIGRTMAX", Some(64)),
        ("RTMIN+31", None),
        ("RTMAX-31", None),
        ("RTMIN-1", None),
        ("RTMIN+-1", None),
        ("RTMIN+4294967295", None),
        ("RTMIN+", None),
        ("65", None),
        ("-9", None),
        ("+9", None),
        ("", None),
        ("SIG", None),
        ("SIGSIGTERM", None),
        ("99999999999", None),
    ] {
        assert_eq!(signal(name).ok(), number, "{name:?}");
    }
    let Command::Kill(kill) = parsed("kill web").command else { panic!() };
    assert_eq!(kill.signal, 15);
}

#[test]
fn a_word_that_is_not_utf8_is_refused_where_text_is_meant() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(b"a\xff".to_vec());
    assert!(parse(["state".into(), bad()]).is_err());
    let Command::Create(create) = parse(["create".into(), "-b".into(), bad(), "web".into()]).unwrap().command else {
        panic!()
    };
    assert_eq!(create.bundle, PathBuf::from(bad()));
}

#[test]
fn explain_takes_a_name_or_none() {
    let Command::Explain(found) = parsed("explain -b /b -f /c.json --json web").command else { panic!() };
    assert_eq!((found.id.as_deref(), found.json, found.overlay), (Some("web"), true, false));
    assert_eq!((found.bundle.to_str(), found.config), (Some("/b"), Some("/c.json".into())));
    let Command::Explain(found) = parsed("explain").command else { panic!() };
    assert_eq!((found.id, found.bundle.to_str(), found.json), (None, Some("."), false));
    assert!(refused("explain a b").0.contains("unexpected argument"));
}

#[test]
fn an_image_is_fetched_as_is_asked() {
    for line in ["run --image i", "bundle i /d", "explain --image i"] {
        let (command, rest) = line.split_once(' ').unwrap();
        let line = format!("{command} --plain-http a:1 --plain-http=b --unpack-limits ratio=9 {rest}");
        let image = match parsed(&line).command {
            Command::Run(run) => run.image.unwrap(),
            Command::Bundle(bundle) => bundle.image,
            Command::Explain(explain) => explain.image.unwrap(),
            _ => panic!(),
        };
        assert_eq!(
            (image.plain_http.join(" "), image.unpack_limits),
            ("a:1 b".into(), Some("ratio=9".into())),
            "{line}"
        );
    }
    assert!(refused("run --plain-http a web").0.contains("--plain-http needs --image"));
}

#[test]
fn timings_go_to_a_file() {
    for line in ["create --timings /t web", "run --timings=/t web", "exec --timings /t web ls"] {
        let timings = match parsed(line).command {
            Command::Create(create) => create.timings,
            Command::Run(run) => run.create.timings,
            Command::Exec(exec) => exec.timings,
            _ => None,
        };
        assert_eq!(timings, Some("/t".into()), "{line}");
    }
    assert!(refused("run --timings").0.contains("flag needs an argument"));
}
