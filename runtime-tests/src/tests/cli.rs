//! Commands, options and outputs, as engines and people use them.

use std::fs;

use super::lifecycle::is_rfc3339;
use crate::harness::{Bundle, Cmd, Container, Context, Lines, Outcome, Peer, Test, Value, cgroup, eventually, json};
use crate::{check, check_eq, sys};

pub const TESTS: &[Test] = &[
    Test { name: "version", run: version },
    Test { name: "help", run: help },
    Test { name: "help_of_a_command", run: help_of_a_command },
    Test { name: "unknown_command", run: unknown_command },
    Test { name: "unknown_option", run: unknown_option },
    Test { name: "too_many_words", run: too_many_words },
    Test { name: "options_before_and_after_the_id", run: options_around_the_id },
    Test { name: "options_after_the_id_of_kill", run: options_after_the_id_of_kill },
    Test { name: "options_with_equal_sign_and_short_forms", run: option_forms },
    Test { name: "short_forms", run: short_forms },
    Test { name: "no_subreaper", run: no_subreaper },
    Test { name: "rootless_by_option", run: rootless_by_option },
    Test { name: "spec_into_another_file", run: spec_file },
    Test { name: "exec_in_a_cgroup_below", run: exec_in_cgroup },
    Test { name: "exec_where_there_is_no_process", run: exec_without_process },
    Test { name: "exec_tty_and_detach_without_a_socket", run: exec_tty_detached },
    Test { name: "options_after_the_program_belong_to_it", run: options_of_the_program },
    Test { name: "bundle_defaults_to_the_working_directory", run: default_bundle },
    Test { name: "config_from_another_file", run: other_config },
    Test { name: "run_with_other_arguments", run: run_with_arguments },
    Test { name: "exec_where_run_had_other_arguments", run: exec_after_run_with_arguments },
    Test { name: "exec_options", run: exec_options },
    Test { name: "exec_environment_from_the_caller", run: exec_environment },
    Test { name: "exec_without_a_program", run: exec_without_program },
    Test { name: "state_is_one_json_document", run: state_json },
    Test { name: "list_empty", run: list_empty },
    Test { name: "list_json", run: list_json },
    Test { name: "list_table", run: list_table },
    Test { name: "list_quiet", run: list_quiet },
    Test { name: "list_with_a_damaged_state", run: list_damaged },
    Test { name: "list_of_a_missing_root", run: list_missing_root },
    Test { name: "ps_json", run: ps_json },
    Test { name: "ps_table", run: ps_table },
    Test { name: "ps_options", run: ps_options },
    Test { name: "features", run: features },
    Test { name: "features_claims_what_is_accepted", run: features_are_true },
    Test { name: "spec_runs", run: spec_runs },
    Test { name: "spec_rootless_runs", run: spec_rootless_runs },
    Test { name: "spec_does_not_overwrite", run: spec_does_not_overwrite },
    Test { name: "log_text", run: log_text },
    Test { name: "log_json", run: log_json },
    Test { name: "log_is_appended_to", run: log_appended },
    Test { name: "log_warnings", run: log_warnings },
    Test { name: "log_is_relative_to_the_caller", run: log_relative },
    Test { name: "log_that_cannot_be_written", run: log_unwritable },
    Test { name: "log_format_unknown", run: log_format_unknown },
    Test { name: "log_level_and_debug", run: log_level },
    Test { name: "later_commands_are_refused", run: later_commands },
    Test { name: "cgroup_manager_that_is_none_is_refused", run: unknown_manager },
    Test { name: "regex_for_kill_and_delete", run: regex },
    Test { name: "regex_that_is_none", run: regex_invalid },
    Test { name: "regex_goes_on_after_one_that_refuses", run: regex_goes_on },
    Test { name: "output_that_nobody_reads", run: broken_pipe },
];

/// The runtime without `--root`.
fn bare(ctx: &Context) -> Cmd<'_> {
    ctx.runtime_without_root()
}

fn sleeper(ctx: &Context) -> Outcome<Bundle<'_>> {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["sleep"]);
    Ok(bundle)
}

// ---- help and errors -----------------------------------------------------------------------------------------------

/// go-runc takes the version from the first line, moby the commit from the second (contract of the drivers).
fn version(ctx: &Context) -> Outcome {
    for option in ["--version", "-v"] {
        let run = bare(ctx).arg(option).run()?.ok()?;
        let text = run.out();
        let mut lines = text.lines();
        let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        check_eq!(first[..2], [ctx.peer.name(), "version"], "first line of {option}: {text:?}");
        check!(first.get(2).is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())), "version in {text:?}");
        for key in ["commit: ", "spec: "] {
            check!(text.lines().any(|l| l.starts_with(key) && l.len() > key.len()), "no {key:?} in {text:?}");
        }
    }
    Ok(())
}

fn help(ctx: &Context) -> Outcome {
    for words in [&["--help"][..], &["-h"], &["help"]] {
        let text = bare(ctx).args(words).run()?.ok()?.out();
        for verb in
            ["create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "pause", "resume", "spec"]
        {
            check!(text.contains(verb), "{words:?} does not name {verb}: {text}");
        }
    }
    Ok(())
}

fn help_of_a_command(ctx: &Context) -> Outcome {
    for verb in [
        "create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "pause", "resume", "spec",
        "features",
    ] {
        let text = bare(ctx).args([verb, "--help"]).run()?.ok()?.out();
        check!(text.contains(verb), "{verb} --help: {text}");
        check_eq!(bare(ctx).args(["help", verb]).run()?.ok()?.out(), text, "help {verb} against {verb} --help");
    }
    let text = bare(ctx).args(["create", "--help"]).run()?.ok()?.out();
    for option in ["--bundle", "--console-socket", "--pid-file", "--no-pivot", "--no-new-keyring", "--preserve-fds"] {
        check!(text.contains(option), "create --help does not name {option}: {text}");
    }
    Ok(())
}

fn unknown_command(ctx: &Context) -> Outcome {
    let run = bare(ctx).arg("frobnicate").run()?.exits(3)?;
    check!(run.err().contains("frobnicate"), "the error does not name the command\n  {}", run.told());
    check_eq!(run.out(), "", "output of an unknown command");
    Ok(())
}

fn unknown_option(ctx: &Context) -> Outcome {
    ctx.runtime().args(["--frobnicate", "list"]).run()?.fails_saying(&["frobnicate"])?;
    ctx.runtime().args(["list", "--frobnicate"]).run()?.fails_saying(&["frobnicate"])?;
    ctx.runtime().args(["list", "--format"]).run()?.fails_saying(&["format"])?;
    ctx.runtime().args(["list", "--format", "xml"]).run()?.fails_saying(&["format"])?;
    Ok(())
}

fn too_many_words(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.create()?;
    for verb in ["state", "start", "delete", "pause", "resume"] {
        container.verb(verb).args([&container.id, "another"]).run()?.fails().map_err(|e| e.during(verb))?;
    }
    check_eq!(container.status()?, "created", "status after commands with too many words");
    Ok(())
}

// ---- options -------------------------------------------------------------------------------------------------------

fn options_after_the_id_of_kill(ctx: &Context) -> Outcome {
    let container = sleeper(ctx)?.start()?;
    let pid = container.pid()?;
    container.verb("kill").args([&container.id, "--all", "KILL"]).run()?.ok()?;
    check_eq!(container.wait_exit(pid)?, 128 + libc::SIGKILL, "end of the process");
    Ok(())
}

fn options_around_the_id(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let file = ctx.dir.join("pid");
    let container = bundle.container()?;
    let id = &container.id;
    container.verb("create").arg(id).arg("--bundle").arg(&bundle.dir).arg("--pid-file").arg(&file).run()?.ok()?;
    check_eq!(fs::read_to_string(&file)?, container.pid()?.to_string(), "--pid-file after the id");
    container.start()?.ok()?;
    container.verb("delete").args([id, "--force"]).run()?.ok()?;
    bundle.guest(&["exit", "6"]).write()?;
    container.verb("run").arg(id).arg("--bundle").arg(&bundle.dir).run()?.exits(6)?;
    Ok(())
}

fn option_forms(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.container()?;
    let root = format!("--root={}", ctx.root.display());
    let dir = format!("--bundle={}", bundle.dir.display());
    bare(ctx).args([&root, "create", &dir, &container.id]).run()?.ok()?;
    container.delete()?.ok()?;
    container.verb("create").arg("-b").arg(&bundle.dir).arg(&container.id).run()?.ok()?;
    container.verb("list").args(["-f", "json"]).run()?.ok()?.json()?;
    container.verb("list").arg("--format=json").run()?.ok()?.json()?;
    container.verb("delete").args(["-f", &container.id]).run()?.ok()?;
    Ok(())
}

fn options_of_the_program(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let words = ["/bin/guest", "report", ",", "print", "--user", ",", "print", "-e"];
    let run = container.exec_command(&["--env", "A=1"], &words).run()?.ok()?;
    check_eq!(run.report()?["args"], json!(words), "arguments of the program");
    check!(run.out().ends_with("--user\n-e\n"), "output: {:?}", run.out());
    container.end()
}

/// `-b`, `-p`, `-d`, `-t`, `-e`, `-u`, `-g`, `-c`, `-f`: what has no test elsewhere.
fn short_forms(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.container()?;
    container.verb("run").arg("-d").arg("-b").arg(&bundle.dir).arg(&container.id).run()?.ok()?;
    let process = ctx.dir.join("process.json");
    fs::write(&process, serde_json::to_vec(&container.process(&["print", "from -p"]))?)?;
    container.exec_command(&["-p", &process.to_string_lossy()], &[]).run()?.ok()?.prints("from -p\n")?;
    if ctx.peer == Peer::Kelson {
        let seen = container.exec_command(&["-g", "5"], &["/bin/guest", "report"]).run()?.ok()?.report()?;
        check_eq!(seen["groups"], json!([5]), "groups");
    }
    let (main, peer) = sys::open_pty()?;
    let running = container.exec_command(&["-t"], &["/bin/guest", "tty"]).on_terminal(peer).spawn()?;
    let shown = String::from_utf8_lossy(&Lines::new(main).to_end(ctx.patience)?).into_owned();
    running.wait()?.ok()?;
    check!(shown.contains("\"tty\""), "what the terminal showed: {shown}");
    container.end()
}

/// Orphans of a container without a PID namespace fall to run, or to the next subreaper, which is the test.
fn no_subreaper(ctx: &Context) -> Outcome {
    for option in [None, Some("--no-subreaper")] {
        let mut bundle = ctx.bundle()?;
        bundle.options.extend(option.map(str::to_owned));
        bundle.without_namespace("pid").guest(&["leave", "leave", "sleep", ",", "ready", ",", "sleep"]);
        let container = bundle.container()?;
        let mut run = container.run_command().piped().spawn()?;
        while !run.line()?.contains("ready") {}
        let init = container.pid()?;
        let expected = if option.is_some() { std::process::id() as i32 } else { run.pid() };
        eventually(ctx.patience, &format!("{option:?}: the orphan's parent is {expected}"), || {
            let inside = cgroup::processes(&container.cgroup("freezer"));
            inside.iter().any(|pid| *pid != init && parent(*pid) == Some(expected)).then_some(())
        })?;
        container.kill("KILL")?.ok()?;
        run.wait()?.exits(128 + libc::SIGKILL)?;
    }
    Ok(())
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn rootless_by_option(ctx: &Context) -> Outcome {
    for value in ["true", "false", "auto"] {
        let mut bundle = ctx.bundle()?;
        bundle.guest(&["exit", "0"]);
        let container = bundle.container()?;
        ctx.runtime().args(["--rootless", value, "run", "--bundle"]).arg(&bundle.dir).arg(&container.id).run()?.ok()?;
    }
    ctx.runtime().args(["--rootless", "perhaps", "list"]).run()?.fails_saying(&["rootless"])?;
    Ok(())
}

fn spec_file(ctx: &Context) -> Outcome {
    ctx.need_kelson("spec --file")?;
    let bundle = ctx.bundle()?;
    for option in ["--file", "-f"] {
        let file = ctx.dir.join(format!("other{option}.json"));
        ctx.runtime().args(["spec", option]).arg(&file).arg("-b").arg(&bundle.dir).run()?.ok()?;
        let written: Value = serde_json::from_slice(&fs::read(&file)?)?;
        check!(written["ociVersion"].is_string(), "what {option} wrote: {written}");
        ctx.runtime().args(["spec", option]).arg(&file).run()?.fails_saying(&["other"])?;
    }
    check!(!bundle.dir.join("config.json").exists(), "config.json was written");
    Ok(())
}

fn exec_in_cgroup(ctx: &Context) -> Outcome {
    let container = sleeper(ctx)?.start()?;
    let below = container.cgroup("freezer").join("below");
    fs::create_dir(&below)?;
    // On v1 a path without a controller is meant for all of them, which do not have it.
    let path = if ctx.is_v2() { "below" } else { "freezer:below" };
    let run = container.exec_command(&["--cgroup", path], &["/bin/guest", "report"]).run();
    fs::remove_dir(&below)?;
    let seen = run?.ok()?.report()?;
    let lines = seen["cgroup"].as_array().cloned().unwrap_or_default();
    let line =
        |wanted: &str| lines.iter().filter_map(|l| l.as_str()).any(|l| l.contains(wanted) && l.ends_with("/below"));
    check!(line(if ctx.is_v2() { "0::" } else { ":freezer:" }), "cgroups of exec: {lines:?}");
    container.end()
}

fn exec_without_process(ctx: &Context) -> Outcome {
    ctx.need_kelson("a container without a process")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.remove("/process").create()?;
    let run = container.exec(&["exit", "0"])?.fails_saying(&["process"])?;
    check_eq!(run.code, 255, "exit code\n  {}", run.told());
    container.verb("delete").args(["--force", &container.id]).run()?.ok()?;
    Ok(())
}

fn exec_tty_detached(ctx: &Context) -> Outcome {
    let container = sleeper(ctx)?.start()?;
    let run = container.exec_command(&["--tty", "--detach"], &["/bin/guest", "exit", "0"]).run()?.fails()?;
    if ctx.peer == Peer::Kelson {
        run.fails_saying(&["process.terminal", "--console-socket"])?;
    }
    container.end()
}

fn default_bundle(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "5"]);
    let container = bundle.container()?;
    container.verb("run").arg(&container.id).cwd(&bundle.dir).run()?.exits(5)?;
    Ok(())
}

fn other_config(ctx: &Context) -> Outcome {
    if ctx.peer == Peer::Runc {
        crate::skip!("runc has no --config");
    }
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "5"]);
    let container = bundle.container()?;
    let other = ctx.dir.join("other.json");
    bundle.guest(&["exit", "6"]);
    fs::write(&other, bundle.config.to_string())?;
    let run = container.verb("run").arg("--config").arg(&other).arg("--bundle").arg(&bundle.dir).arg(&container.id);
    run.run()?.exits(6)?;
    Ok(())
}

fn run_with_arguments(ctx: &Context) -> Outcome {
    ctx.need_kelson("words after the id of run")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["exit", "5"]).container()?;
    let run = container.run_command().args(["/bin/guest", "print", "--bundle"]).run()?.ok()?;
    check_eq!(run.out(), "--bundle\n", "output");
    bundle.remove("/process/args");
    bundle.run_command()?.args(["/bin/guest", "print", "without"]).run()?.prints("without\n")?;
    Ok(())
}

/// The config that exec reads has no args.
fn exec_after_run_with_arguments(ctx: &Context) -> Outcome {
    ctx.need_kelson("words after the id of run")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.remove("/process/args").container()?;
    let run = container.verb("run").args(["--detach", "--bundle"]).arg(&bundle.dir).arg(&container.id);
    run.args(["/bin/guest", "sleep"]).run()?.ok()?;
    container.exec(&["print", "inside"])?.prints("inside\n")?;
    container.exec_process(&container.process(&["print", "by a file"]))?.prints("by a file\n")?;
    container.exec_command(&[], &[]).run()?.fails()?;
    container.end()
}

fn exec_options(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set("/process/noNewPrivileges", false);
    let container = bundle.start()?;
    let options = [
        "--env",
        "A=1",
        "--env",
        "B=x=y",
        "--cwd",
        "/tmp",
        "--user",
        "1000:2000",
        "--additional-gids",
        "3",
        "--additional-gids",
        "4",
        "--no-new-privs",
        "--cap",
        "CAP_NET_ADMIN",
    ];
    let seen = container.exec_command(&options, &["/bin/guest", "report"]).run()?.ok()?.report()?;
    check_eq!((seen.env("A"), seen.env("B")), (Some("1".into()), Some("x=y".into())), "--env");
    check_eq!(seen.text("cwd"), "/tmp", "--cwd");
    check_eq!((seen["uids"][0].clone(), seen["gids"][0].clone()), (json!(1000), json!(2000)), "--user");
    check_eq!(seen["groups"], json!([3, 4]), "--additional-gids");
    check_eq!(seen.number("no_new_privs"), 1, "--no-new-privs");
    let bit = crate::harness::bundle::capability_bits(&["CAP_NET_ADMIN"]);
    check!(seen.capabilities("bounding") & bit != 0, "--cap CAP_NET_ADMIN is not in the bounding set");
    let seen = container.exec_command(&["-e", "A=1", "-u", "7", "-c", "CAP_KILL"], &["/bin/guest", "report"]).run()?;
    let seen = seen.ok()?.report()?;
    check_eq!((seen.env("A"), seen["uids"][0].clone()), (Some("1".into()), json!(7)), "short forms");
    container.end()
}

/// `--env NAME` without a value: refused, or empty; never the caller's.
fn exec_environment(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let run =
        container.exec_command(&["--env", "NAME"], &["/bin/guest", "report"]).env("NAME", "of the caller").run()?;
    if run.code == 0 {
        check!(run.report()?.env("NAME").is_none_or(|v| v.is_empty()), "the caller's variable is in the container");
    }
    container.end()
}

fn exec_without_program(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    container.exec_command(&[], &[]).run()?.fails()?;
    container.exec_command(&["--process", "/nonexistent/process.json"], &[]).run()?.fails_saying(&["/nonexistent"])?;
    let broken = ctx.dir.join("broken.json");
    fs::write(&broken, "{\"args\": [")?;
    container.exec_command(&["--process", &broken.to_string_lossy()], &[]).run()?.fails()?;
    check_eq!(container.status()?, "running", "status");
    container.end()
}

// ---- outputs -------------------------------------------------------------------------------------------------------

fn state_json(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let run = container.verb("state").arg(&container.id).run()?.ok()?;
    let state = run.json()?;
    for key in ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created"] {
        check!(!state[key].is_null(), "no {key} in {state}");
    }
    check!(state["pid"].is_i64() && state["id"].is_string(), "types in {state}");
    check_eq!(run.err(), "", "standard error of state");
    container.end()
}

/// What runc prints, and containerd reads.
fn list_empty(ctx: &Context) -> Outcome {
    check_eq!(ctx.runtime().args(["list", "--format", "json"]).run()?.ok()?.out().trim(), "null", "list --format json");
    check_eq!(ctx.runtime().args(["list", "--quiet"]).run()?.ok()?.out(), "", "list --quiet");
    let table = ctx.runtime().arg("list").run()?.ok()?.out();
    check_eq!(table.lines().count(), 1, "lines of an empty table");
    Ok(())
}

/// Three containers: created, running, stopped.
fn three<'c>(bundle: &mut Bundle<'c>) -> Outcome<[Container<'c>; 3]> {
    bundle.set("/annotations", json!({"org.example": "x"})).guest(&["sleep"]);
    let (created, running, stopped) = (bundle.create()?, bundle.start()?, bundle.start()?);
    stopped.kill("KILL")?.ok()?;
    stopped.wait_status("stopped")?;
    Ok([created, running, stopped])
}

fn list_json(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let three = three(&mut bundle)?;
    let list = ctx.runtime().args(["list", "--format", "json"]).run()?.ok()?.json()?;
    let list = list.as_array().cloned().unwrap_or_default();
    check_eq!(list.len(), 3, "containers in the list");
    for (container, status) in three.iter().zip(["created", "running", "stopped"]) {
        let entry = list.iter().find(|e| e["id"] == json!(container.id)).cloned().unwrap_or_default();
        check_eq!(entry["status"], json!(status), "status in {entry}");
        check_eq!(entry["bundle"], json!(bundle.dir), "bundle in {entry}");
        check_eq!(entry["pid"].as_i64().unwrap_or(-1) > 0, status != "stopped", "pid in {entry}");
        check!(is_rfc3339(entry["created"].as_str().unwrap_or_default()), "created in {entry}");
        check_eq!(entry["owner"], json!("root"), "owner in {entry}");
        check_eq!(entry["rootfs"], json!(bundle.rootfs), "rootfs in {entry}");
        check_eq!(entry["annotations"]["org.example"], json!("x"), "annotations in {entry}");
    }
    Ok(())
}

fn list_table(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let three = three(&mut bundle)?;
    let text = ctx.runtime().arg("list").run()?.ok()?.out();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    check_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], "head of the table");
    for (container, status) in three.iter().zip(["created", "running", "stopped"]) {
        let line = text.lines().find(|l| l.split_whitespace().next() == Some(&container.id)).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        check_eq!(words.len(), 6, "columns of {line:?}");
        check_eq!((words[2], words[3]), (status, &*bundle.dir.to_string_lossy()), "status and bundle in {line:?}");
        check!(words[1].parse::<u32>().is_ok() && is_rfc3339(words[4]), "PID and time in {line:?}");
        check_eq!(words[5], "root", "owner in {line:?}");
    }
    Ok(())
}

fn list_quiet(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let three = three(&mut bundle)?;
    let text = ctx.runtime().args(["list", "-q"]).run()?.ok()?.out();
    let mut seen: Vec<&str> = text.lines().collect();
    let mut ids: Vec<&str> = three.iter().map(|c| c.id.as_str()).collect();
    seen.sort_unstable();
    ids.sort_unstable();
    check_eq!(seen, ids, "list --quiet");
    Ok(())
}

/// One container that cannot be read does not hide the others.
fn list_damaged(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.create()?;
    for (name, content) in [("damaged", "{\"id\":"), ("empty", "")] {
        let dir = ctx.root.join(name);
        fs::create_dir(&dir)?;
        for file in ["state.json", "status"] {
            fs::write(dir.join(file), content)?;
        }
    }
    fs::create_dir(ctx.root.join("without"))?;
    fs::write(ctx.root.join("file"), "")?;
    let run = ctx.runtime().args(["list", "--format", "json"]).run()?;
    check!(run.out().contains(&container.id), "the sound container is not in the list\n  {}", run.told());
    let table = ctx.runtime().arg("list").run()?;
    check!(table.out().contains(&container.id), "the sound container is not in the table\n  {}", table.told());
    for name in ["damaged", "empty", "without"] {
        fs::remove_dir_all(ctx.root.join(name))?;
    }
    fs::remove_file(ctx.root.join("file"))?;
    container.end()
}

fn list_missing_root(ctx: &Context) -> Outcome {
    let missing = ctx.dir.join("missing");
    bare(ctx).arg("--root").arg(missing.join("root")).arg("list").run()?.fails()?;
    check!(!missing.exists(), "list made the directory");
    Ok(())
}

fn with_two_children<'c>(ctx: &'c Context, bundle: &mut Bundle<'c>) -> Outcome<(Container<'c>, Vec<i64>)> {
    ctx.need_controller("freezer")?;
    let mut container = bundle.guest(&["fork", "2", ",", "sleep"]).start()?;
    container.hear("fork")?;
    let mut pids: Vec<i64> =
        crate::harness::cgroup::processes(&container.cgroup("freezer")).into_iter().map(i64::from).collect();
    pids.sort_unstable();
    check_eq!(pids.len(), 3, "processes of the container");
    Ok((container, pids))
}

fn ps_json(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let (container, pids) = with_two_children(ctx, &mut bundle)?;
    let list = container.verb("ps").args(["--format", "json", &container.id]).run()?.ok()?.json()?;
    let mut seen: Vec<i64> = list.as_array().into_iter().flatten().filter_map(|v| v.as_i64()).collect();
    seen.sort_unstable();
    check_eq!(seen, pids, "ps --format json");
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    let run = container.verb("ps").args(["--format", "json", &container.id]).run()?;
    check!(run.code != 0 || ["null", "[]"].contains(&run.out().trim()), "ps of a stopped one\n  {}", run.told());
    container.delete()?.ok()?;
    Ok(())
}

fn ps_table(ctx: &Context) -> Outcome {
    ctx.need_program("ps")?;
    let mut bundle = ctx.bundle()?;
    let (container, pids) = with_two_children(ctx, &mut bundle)?;
    let text = container.verb("ps").arg(&container.id).run()?.ok()?.out();
    let head: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    let column = head.iter().position(|w| *w == "PID").ok_or_else(|| format!("no PID in the head: {text}"))?;
    let mut seen: Vec<i64> =
        text.lines().skip(1).filter_map(|l| l.split_whitespace().nth(column)?.parse().ok()).collect();
    seen.sort_unstable();
    check_eq!(seen, pids, "PIDs in {text}");
    container.end()
}

fn ps_options(ctx: &Context) -> Outcome {
    ctx.need_program("ps")?;
    let mut bundle = ctx.bundle()?;
    let (container, pids) = with_two_children(ctx, &mut bundle)?;
    let text = container.verb("ps").args([&container.id, "-e", "-o", "ppid,pid,args"]).run()?.ok()?.out();
    let head: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    check_eq!(head, ["PPID", "PID", "COMMAND"], "head of ps -o");
    check_eq!(text.lines().count(), pids.len() + 1, "lines of {text}");
    container.end()
}

fn features(ctx: &Context) -> Outcome {
    let document = ctx.runtime().arg("features").run()?.ok()?.json()?;
    let has = |pointer: &str, word: &str| -> bool {
        document.pointer(pointer).and_then(Value::as_array).is_some_and(|list| list.contains(&json!(word)))
    };
    for key in ["ociVersionMin", "ociVersionMax"] {
        check!(document[key].as_str().is_some_and(|v| v.starts_with("1.")), "{key} in {document}");
    }
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        check!(has("/hooks", hook), "no hook {hook}");
    }
    for option in ["ro", "rbind", "rprivate", "nosuid", "noatime", "rslave"] {
        check!(has("/mountOptions", option), "no mount option {option}");
    }
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        check!(has("/linux/namespaces", kind), "no namespace {kind}");
    }
    check!(has("/linux/capabilities", "CAP_SYS_ADMIN"), "no CAP_SYS_ADMIN");
    check_eq!(document.pointer("/linux/seccomp/enabled"), Some(&json!(true)), "seccomp");
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"] {
        check!(has("/linux/seccomp/actions", action), "no action {action}");
    }
    Ok(())
}

/// Whatever is claimed is accepted in a config.
fn features_are_true(ctx: &Context) -> Outcome {
    let document = ctx.runtime().arg("features").run()?.ok()?.json()?;
    let words = |pointer: &str| -> Vec<String> {
        let list = document.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(|v| v.as_str()).map(str::to_owned).collect()
    };
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "0"]);
    let needs_more =
        ["idmap", "ridmap", "remount", "bind", "rbind", "move", "tmpcopyup", "mand", "iversion", "lazytime"];
    for option in words("/mountOptions") {
        if needs_more.contains(&option.as_str()) {
            continue;
        }
        let mut bundle = ctx.bundle()?;
        bundle.guest(&["exit", "0"]).mount("/mnt", "bind", ctx.new_dir("source")?, &["bind", &option]);
        let run = bundle.run()?;
        if ctx.filter.is_some() && run.code != 0 {
            // Claimed as what Kelson has; this kernel lacks the call for it, and the error says so.
            run.fails_saying(&["mounts[7]", "mount_setattr(2)"])?;
        } else {
            run.ok().map_err(|e| e.during(&format!("mount option {option}")))?;
        }
    }
    let syscalls = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": words("/linux/seccomp/archs"), "syscalls": syscalls,
    });
    bundle.set("/linux/seccomp", profile);
    bundle.run()?.ok().map_err(|e| e.during("all seccomp architectures"))?;
    let with_rule = |bundle: &mut Bundle, action: &str, operator: &str| -> Outcome {
        let args = json!([{"index": 0, "value": 1, "op": operator}]);
        let rules = json!([{"names": ["acct"], "action": action, "args": args}]);
        bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
        bundle.run()?.ok().map_err(|e| e.during(&format!("{action} {operator}")))?;
        Ok(())
    };
    // NOTIFY and its flag need somebody who listens: seccomp::notify_listener.
    for action in
        words("/linux/seccomp/actions").iter().filter(|a| !["SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW"].contains(&a.as_str()))
    {
        with_rule(&mut bundle, action, "SCMP_CMP_EQ")?;
    }
    for operator in words("/linux/seccomp/operators") {
        with_rule(&mut bundle, "SCMP_ACT_ERRNO", &operator)?;
    }
    bundle.remove("/linux/seccomp");
    for mode in words("/linux/memoryPolicy/modes") {
        let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode.as_str()) { "" } else { "0" };
        bundle.set("/linux/memoryPolicy", json!({"mode": mode, "nodes": nodes}));
        bundle.run()?.ok().map_err(|e| e.during(&mode))?;
    }
    bundle.remove("/linux/memoryPolicy");
    let claims = |pointer: &str| document.pointer(pointer).and_then(Value::as_bool);
    if ctx.peer == Peer::Kelson {
        for (pointer, expected) in [
            ("/linux/cgroup/systemd", true),
            ("/linux/cgroup/systemdUser", true),
            ("/linux/intelRdt/enabled", false),
            ("/linux/cgroup/v1", true),
            ("/linux/cgroup/v2", true),
            // Of the runtime, whatever the host has (features-linux.md#apparmor).
            ("/linux/apparmor/enabled", true),
            ("/linux/selinux/enabled", true),
            ("/linux/netDevices/enabled", true),
            ("/linux/mountExtensions/idmap/enabled", true),
        ] {
            check_eq!(claims(pointer), Some(expected), "{pointer}");
        }
    }
    let all = words("/linux/capabilities");
    bundle.remove("/linux/seccomp").set("/process/capabilities", json!({"bounding": all}));
    let run = bundle.run()?.ok().map_err(|e| e.during("all capabilities"))?;
    check!(!run.err().contains("unknown"), "an unknown capability is claimed: {}", run.err());
    Ok(())
}

// ---- spec ----------------------------------------------------------------------------------------------------------

/// What `spec` writes, but for the program.
fn specified<'c>(ctx: &'c Context, options: &[&str]) -> Outcome<Bundle<'c>> {
    let mut bundle = ctx.bundle()?;
    let run = ctx.runtime().arg("spec").arg("--bundle").arg(&bundle.dir).args(options).run()?.ok()?;
    check_eq!(run.out(), "", "output of spec");
    bundle.config = serde_json::from_slice(&fs::read(bundle.dir.join("config.json"))?)?;
    let (key, value) = ctx.marker();
    bundle.push("/process/env", format!("{key}={value}")).guest(&["report"]);
    Ok(bundle)
}

fn spec_runs(ctx: &Context) -> Outcome {
    let mut bundle = specified(ctx, &[])?;
    check_eq!(bundle.config["process"]["terminal"], json!(true), "process.terminal");
    let (main, peer) = sys::open_pty()?;
    let running = bundle.run_command()?.on_terminal(peer).spawn()?;
    let shown = String::from_utf8_lossy(&Lines::new(main).to_end(ctx.patience)?).into_owned();
    running.wait()?.ok().map_err(|e| e.during(&shown))?;
    let report = shown.lines().find_map(|l| serde_json::from_str::<Value>(l.trim()).ok()).unwrap_or_default();
    check_eq!(report["report"]["pid"], json!(1), "what the terminal showed: {shown}");
    check_eq!(report["report"]["no_new_privs"], json!(1), "no_new_privs");
    Ok(())
}

fn spec_rootless_runs(ctx: &Context) -> Outcome {
    ctx.become_rootless(1000)?;
    let mut bundle = ctx.bundle()?;
    crate::harness::bundle::give(&bundle.dir, 1000)?;
    ctx.runtime().arg("spec").arg("--rootless").arg("--bundle").arg(&bundle.dir).run()?.ok()?;
    bundle.config = serde_json::from_slice(&fs::read(bundle.dir.join("config.json"))?)?;
    let maps = bundle.config["linux"]["uidMappings"].clone();
    check_eq!((maps[0]["hostID"].clone(), maps[0]["size"].clone()), (json!(1000), json!(1)), "uidMappings: {maps}");
    bundle.set("/process/terminal", false).guest(&["report"]);
    let (key, value) = ctx.marker();
    bundle.push("/process/env", format!("{key}={value}"));
    bundle.edit(|config| {
        if let Some(linux) = config["linux"].as_object_mut() {
            linux.remove("cgroupsPath");
        }
    });
    fs::write(bundle.dir.join("config.json"), bundle.config.to_string())?;
    let run = ctx.runtime().arg("run").arg("--bundle").arg(&bundle.dir).arg(bundle.fresh_id()).run()?;
    let seen = run.ok()?.report()?;
    check_eq!(seen["uids"], json!([0, 0, 0, 0]), "uids inside");
    check_eq!(seen["uid_map"], json!([[0, 1000, 1]]), "uid_map");
    Ok(())
}

fn spec_does_not_overwrite(ctx: &Context) -> Outcome {
    let dir = ctx.new_dir("spec")?;
    ctx.runtime().arg("spec").cwd(&dir).run()?.ok()?;
    let before = fs::read(dir.join("config.json"))?;
    let config: Value = serde_json::from_slice(&before)?;
    check!(config["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "ociVersion: {}", config["ociVersion"]);
    fs::write(dir.join("config.json"), "mine")?;
    ctx.runtime().arg("spec").cwd(&dir).run()?.fails()?;
    check_eq!(fs::read_to_string(dir.join("config.json"))?, "mine", "config.json after a second spec");
    Ok(())
}

// ---- log -----------------------------------------------------------------------------------------------------------

/// A command that fails, with these global options.
fn failing(ctx: &Context, options: &[&str]) -> Outcome<String> {
    let run = ctx.runtime().args(options).args(["state", "nobody"]).run()?.fails()?;
    Ok(run.err())
}

fn log_text(ctx: &Context) -> Outcome {
    let file = ctx.dir.join("log");
    let said = failing(ctx, &["--log", &file.to_string_lossy()])?;
    let text = fs::read_to_string(&file)?;
    check_eq!(text.lines().count(), 1, "lines of {text:?}");
    check!(text.starts_with("time=\"") && text.contains("level=error") && text.contains("msg="), "log: {text:?}");
    check!(text.contains("exist"), "the log does not tell the error: {text:?}");
    check!(said.contains("exist"), "standard error does not tell the error: {said:?}");
    Ok(())
}

fn json_lines(text: &str) -> Outcome<Vec<Value>> {
    let mut list = vec![];
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("{line:?} is no JSON: {e}"))?;
        check!(value["level"].is_string() && value["msg"].is_string(), "level and msg in {line:?}");
        check!(is_rfc3339(value["time"].as_str().unwrap_or_default()), "time in {line:?}");
        list.push(value);
    }
    Ok(list)
}

/// containerd takes the last line with level error as the error; every line must be an object.
fn log_json(ctx: &Context) -> Outcome {
    let file = ctx.dir.join("log");
    let options = ["--log", &file.to_string_lossy(), "--log-format", "json"];
    failing(ctx, &options)?;
    let mut bundle = sleeper(ctx)?;
    bundle.set("/hostname", "with \"quotes\"\n, a line break, \u{1} and \u{2028} ünïcode");
    bundle.mount("/mnt", "bind", "/nonexistent/\"quoted\"\nsource", &["bind"]);
    let container = bundle.container()?;
    let run = ctx.runtime().args(options).arg("run").arg("--bundle").arg(&bundle.dir).arg(&container.id);
    run.run()?.fails()?;
    ctx.runtime().args(options).args(["exec", "nobody", "/bin/sh"]).run()?.fails()?;
    let list = json_lines(&fs::read_to_string(&file)?)?;
    let errors = list.iter().filter(|l| l["level"] == "error").count();
    check_eq!(errors, 3, "lines with an error in {list:?}");
    check!(list.last().is_some_and(|l| l["level"] == "error"), "the last line is no error: {list:?}");
    Ok(())
}

fn log_appended(ctx: &Context) -> Outcome {
    let file = ctx.dir.join("log");
    fs::write(&file, "{\"level\":\"info\",\"msg\":\"of somebody else\",\"time\":\"2026-01-01T00:00:00Z\"}\n")?;
    let options = ["--log", &file.to_string_lossy(), "--log-format=json"];
    for _ in 0..3 {
        failing(ctx, &options)?;
    }
    let list = json_lines(&fs::read_to_string(&file)?)?;
    check_eq!(list.len(), 4, "lines of the log");
    check_eq!(list[0]["msg"], json!("of somebody else"), "the line that was there");
    // Success leaves a log that is there, or makes none with content.
    ctx.runtime().args(options).arg("list").run()?.ok()?;
    check_eq!(json_lines(&fs::read_to_string(&file)?)?.len(), 4, "lines after a command that succeeded");
    Ok(())
}

fn log_warnings(ctx: &Context) -> Outcome {
    let file = ctx.dir.join("log");
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "0"]).set("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_UNHEARD_OF"]));
    let container = bundle.container()?;
    let run = ctx.runtime().arg("--log").arg(&file).args(["--log-format", "json", "run", "--bundle"]).arg(&bundle.dir);
    run.arg(&container.id).run()?.ok()?;
    let list = json_lines(&fs::read_to_string(&file)?)?;
    let found = list
        .iter()
        .any(|l| l["level"] == "warning" && l["msg"].as_str().unwrap_or_default().contains("CAP_UNHEARD_OF"));
    check!(found, "no warning about CAP_UNHEARD_OF in {list:?}");
    Ok(())
}

fn log_relative(ctx: &Context) -> Outcome {
    let dir = ctx.new_dir("cwd")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/args", json!(["/no/such/program"]));
    let container = bundle.container()?;
    let run = ctx.runtime().args(["--log", "here.log", "run", "--bundle"]).arg(&bundle.dir).arg(&container.id);
    run.cwd(&dir).run()?.fails()?;
    check!(fs::read_to_string(dir.join("here.log"))?.contains("/no/such/program"), "the log in the caller's directory");
    check!(!bundle.dir.join("here.log").exists(), "a log in the bundle");
    Ok(())
}

fn log_unwritable(ctx: &Context) -> Outcome {
    let said = failing(ctx, &["--log", "/nonexistent/directory/log"])?;
    check!(said.contains("/nonexistent/directory/log"), "the error does not name the log: {said:?}");
    Ok(())
}

fn log_format_unknown(ctx: &Context) -> Outcome {
    ctx.runtime().args(["--log-format", "xml", "list"]).run()?.exits(1)?.fails_saying(&["log-format"])?;
    Ok(())
}

fn log_level(ctx: &Context) -> Outcome {
    ctx.need_kelson("levels as words of --log-level")?;
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "0"]).set("/process/capabilities/bounding", json!(["CAP_UNHEARD_OF"]));
    for (options, warns) in [
        (&["--log-level", "error"][..], false),
        (&["--log-level=warning"], true),
        (&["--log-level", ""], true),
        (&["--debug"], true),
        (&["--log-level", "trace"], true),
        (&[], true),
    ] {
        let container = bundle.container()?;
        let run =
            ctx.runtime().args(options).arg("run").arg("--bundle").arg(&bundle.dir).arg(&container.id).run()?.ok()?;
        check_eq!(run.err().contains("CAP_UNHEARD_OF"), warns, "a warning with {options:?}: {:?}", run.err());
    }
    ctx.runtime().args(["--log-level", "loud", "list"]).run()?.fails_saying(&["log-level"])?;
    Ok(())
}

// ---- what is not there ---------------------------------------------------------------------------------------------

/// podman asks `checkpoint --help` whether there is such a thing: its exit code must say no.
fn later_commands(ctx: &Context) -> Outcome {
    ctx.need_kelson("refusing commands that come later")?;
    for words in
        [&["checkpoint", "id"][..], &["checkpoint", "--help"], &["restore", "id"], &["restore", "--lsm-mount-context"]]
    {
        ctx.runtime().args(words).run()?.exits(1)?.fails_saying(&[words[0], "not supported"])?;
    }
    Ok(())
}

fn unknown_manager(ctx: &Context) -> Outcome {
    ctx.need_kelson("refusing another cgroup manager")?;
    ctx.runtime().args(["--cgroup-manager", "nonsense", "list"]).run()?.fails_saying(&["cgroup-manager"])?;
    Ok(())
}

// ---- regular expressions -------------------------------------------------------------------------------------------

fn regex(ctx: &Context) -> Outcome {
    if ctx.peer == Peer::Runc {
        crate::skip!("runc has no --regex");
    }
    let mut bundle = sleeper(ctx)?;
    let mut named = |id: &str| -> Outcome<Container<'_>> {
        let mut container = bundle.container()?;
        container.id = id.to_owned();
        container.create()?.ok()?;
        container.start()?.ok()?;
        Ok(container)
    };
    let (one, two, other) = (named("web-1")?, named("web-2")?, named("db.1")?);
    ctx.runtime().args(["kill", "--regex", "^web-[0-9]+$", "KILL"]).run()?.ok()?;
    one.wait_status("stopped")?;
    two.wait_status("stopped")?;
    check_eq!(other.status()?, "running", "status of the one that does not match");
    ctx.runtime().args(["delete", "--regex", "web-(1|2)"]).run()?.ok()?;
    check_eq!(ctx.state_entries(), ["db.1"], "what is left after delete --regex");
    ctx.runtime().args(["delete", "--force", "--regex", "^d"]).run()?.ok()?;
    check!(ctx.state_entries().is_empty(), "what is left after delete --force --regex");
    Ok(())
}

fn regex_goes_on(ctx: &Context) -> Outcome {
    if ctx.peer == Peer::Runc {
        crate::skip!("runc has no --regex");
    }
    let mut bundle = sleeper(ctx)?;
    let mut named = |id: &str| -> Outcome<Container<'_>> {
        let mut container = bundle.container()?;
        container.id = id.to_owned();
        container.create()?.ok()?;
        container.start()?.ok()?;
        Ok(container)
    };
    let (one, two, three) = (named("web-1")?, named("web-2")?, named("web-3")?);
    one.kill("KILL")?.ok()?;
    one.wait_status("stopped")?;
    let run = ctx.runtime().args(["kill", "--regex", "^web-", "KILL"]).run()?;
    let words = ["not running", "No such process"];
    check!(words.iter().any(|w| run.err().contains(w)), "not a word of the one that is stopped: {}", run.told());
    two.wait_status("stopped")?;
    three.wait_status("stopped")?;
    if ctx.peer == Peer::Kelson {
        run.fails_saying(&["web-1", "1 of 3"])?;
    }
    let four = named("web-0")?;
    let run = ctx.runtime().args(["delete", "--regex", "^web-"]).run()?;
    check_eq!(ctx.state_entries(), ["web-0"], "what is left after delete --regex");
    if ctx.peer == Peer::Kelson {
        run.fails_saying(&["web-0", "not stopped", "1 of 4"])?;
        ctx.runtime()
            .args(["--root", "/nonexistent", "kill", "--regex", "a", "KILL"])
            .run()?
            .fails_saying(&["/nonexistent"])?;
    }
    four.end()
}

fn regex_invalid(ctx: &Context) -> Outcome {
    ctx.need_kelson("an error for a regular expression that is none")?;
    ctx.runtime().args(["kill", "--regex", "(", "KILL"]).run()?.fails()?;
    ctx.runtime().args(["delete", "--regex", "["]).run()?.fails()?;
    Ok(())
}

/// `kelson list | head -1` ends like any program: no panic, no message about one.
fn broken_pipe(ctx: &Context) -> Outcome {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    drop(read);
    let errors = ctx.dir.join("errors");
    let file = fs::File::create(&errors)?;
    let null = fs::File::open("/dev/null")?;
    bare(ctx).arg("features").fd(0, null).fd(1, write).fd(2, file).run()?;
    let said = fs::read_to_string(&errors)?;
    check!(!said.contains("panic") && said.lines().count() <= 1, "standard error: {said:?}");
    Ok(())
}
