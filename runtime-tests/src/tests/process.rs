//! `process` in config.json, and what else a container's process inherits or must not (config.md#process).

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::sys::stat::Mode;

use crate::harness::bundle::{all_capabilities, capability_bits};
use crate::harness::{Context, Outcome, Peer, Test, json};
use crate::sys::BeforeExec;
use crate::{check, check_eq, skip};

pub const TESTS: &[Test] = &[
    Test { name: "args_and_env_arrive", run: args_and_env_arrive },
    Test { name: "env_is_exactly_the_configured_one", run: env_is_exactly_the_configured_one },
    Test { name: "path_of_the_container_finds_the_program", run: path_finds_the_program },
    Test { name: "empty_path_entry_is_the_cwd", run: relative_program },
    Test { name: "home_comes_from_passwd", run: home_comes_from_passwd },
    Test { name: "home_is_kept_if_set", run: home_is_kept_if_set },
    Test { name: "cwd_is_set", run: cwd_is_set },
    Test { name: "cwd_is_made_if_missing", run: cwd_is_made_if_missing },
    Test { name: "cwd_that_only_the_user_may_enter", run: cwd_of_the_user },
    Test { name: "user_and_group", run: user_and_group },
    Test { name: "additional_gids", run: additional_gids },
    Test { name: "no_supplementary_groups_of_the_caller", run: no_groups_of_the_caller },
    Test { name: "umask_is_set", run: umask_is_set },
    Test { name: "umask_of_the_caller_changes_nothing", run: umask_of_the_caller },
    Test { name: "rlimits_are_exact", run: rlimits_are_exact },
    Test { name: "rlimits_of_every_type", run: rlimits_of_every_type },
    Test { name: "rlimits_with_a_user_namespace", run: rlimits_with_a_user_namespace },
    Test { name: "capabilities_bounding", run: capabilities_bounding },
    Test { name: "capabilities_effective_and_permitted", run: capabilities_effective_and_permitted },
    Test { name: "capabilities_inheritable", run: capabilities_inheritable },
    Test { name: "capabilities_ambient", run: capabilities_ambient },
    Test { name: "capabilities_absent_are_none", run: capabilities_absent_are_none },
    Test { name: "capabilities_of_an_ordinary_user", run: capabilities_of_an_ordinary_user },
    Test { name: "capability_unknown_is_a_warning", run: capability_unknown_is_a_warning },
    Test { name: "capability_unavailable_is_a_warning", run: capability_unavailable_is_a_warning },
    Test { name: "no_new_privileges_on", run: no_new_privileges_on },
    Test { name: "no_new_privileges_off", run: no_new_privileges_off },
    Test { name: "oom_score_adj_is_set", run: oom_score_adj_is_set },
    Test { name: "oom_score_adj_unset_is_untouched", run: oom_score_adj_unset },
    Test { name: "oom_score_adj_with_a_user_namespace", run: oom_score_adj_with_a_user_namespace },
    Test { name: "scheduler_other_with_nice", run: scheduler_other },
    Test { name: "scheduler_batch", run: scheduler_batch },
    Test { name: "scheduler_idle", run: scheduler_idle },
    Test { name: "scheduler_fifo", run: scheduler_fifo },
    Test { name: "scheduler_rr", run: scheduler_rr },
    Test { name: "scheduler_deadline", run: scheduler_deadline },
    Test { name: "scheduler_reset_on_fork", run: scheduler_reset_on_fork },
    Test { name: "io_priority_best_effort", run: io_priority_best_effort },
    Test { name: "io_priority_idle", run: io_priority_idle },
    Test { name: "io_priority_real_time", run: io_priority_real_time },
    Test { name: "exec_cpu_affinity_final", run: exec_cpu_affinity_final },
    Test { name: "exec_cpu_affinity_initial", run: exec_cpu_affinity_initial },
    Test { name: "exec_resets_cpu_affinity", run: exec_resets_cpu_affinity },
    Test { name: "personality_linux32", run: personality_linux32 },
    Test { name: "personality_of_exec", run: personality_of_exec },
    Test { name: "personality_linux", run: personality_linux },
    Test { name: "memory_policy", run: memory_policy },
    Test { name: "pid_one_leads_a_session", run: pid_one_leads_a_session },
    Test { name: "ignored_signals_of_the_caller_are_reset", run: ignored_signals },
    Test { name: "blocked_signals_of_the_caller_are_reset", run: blocked_signals },
    Test { name: "sigpipe_is_not_ignored", run: sigpipe_is_not_ignored },
    Test { name: "stdin_and_output_of_two_megabytes", run: two_megabytes },
    Test { name: "stderr_is_apart", run: stderr_is_apart },
    Test { name: "only_stdio_is_open", run: only_stdio_is_open },
    Test { name: "descriptors_of_the_caller_are_closed", run: descriptors_of_the_caller },
    Test { name: "preserve_fds", run: preserve_fds },
    Test { name: "preserve_fds_missing_is_an_error", run: preserve_fds_missing },
    Test { name: "preserve_fds_beyond_all_numbers_is_an_error", run: preserve_fds_overflow },
    Test { name: "listen_fds", run: listen_fds },
    Test { name: "notify_socket", run: notify_socket },
    Test { name: "notify_socket_that_is_gone", run: notify_gone },
    Test { name: "notify_directory_is_read_only", run: notify_read_only },
    Test { name: "notify_socket_of_the_caller_is_not_execs", run: notify_exec },
    Test { name: "stdio_pipes_belong_to_the_user", run: stdio_belongs_to_the_user },
    Test { name: "session_keyring_is_new", run: session_keyring_is_new },
    Test { name: "session_keyring_is_kept_if_asked", run: session_keyring_is_kept },
    Test { name: "dumpable_for_its_own_user", run: dumpable },
    Test { name: "securebits_are_clear", run: securebits },
    Test { name: "exec_has_the_user_it_is_given", run: exec_user },
    Test { name: "exec_process_properties", run: exec_process_properties },
    Test { name: "exec_process_from_a_pipe", run: exec_process_from_a_pipe },
    Test { name: "exec_process_without_properties_has_the_containers", run: exec_process_without_properties },
    Test { name: "exec_cap_unknown_is_a_warning", run: exec_cap_unknown },
    Test { name: "exec_keeps_no_new_privileges", run: exec_keeps_no_new_privileges },
    Test { name: "exec_is_in_all_namespaces", run: exec_is_in_all_namespaces },
    Test { name: "exec_has_no_extra_descriptors", run: exec_descriptors },
    Test { name: "exec_makes_a_new_keyring", run: exec_keyring },
    Test { name: "exec_makes_none_where_create_made_none", run: exec_no_keyring },
];

fn args_and_env_arrive(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.push("/process/env", "ANSWER=42").guest(&["report", ",", "print", "ünï cödé \n 'quoted'"]);
    let run = bundle.run()?.ok()?;
    let seen = run.report()?;
    check_eq!(seen.env("ANSWER").as_deref(), Some("42"), "ANSWER");
    check_eq!(seen["args"], json!(["/bin/guest", "report", ",", "print", "ünï cödé \n 'quoted'"]), "args");
    check!(run.out().ends_with("ünï cödé \n 'quoted'\n"), "printed: {:?}", run.out());
    check_eq!(seen.number("pid"), 1, "pid");
    Ok(())
}

fn env_is_exactly_the_configured_one(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/env", json!(["PATH=/bin", "A=", "B=x=y", "EMPTY="]));
    let run = bundle.run_command()?.env("LEAKED", "1").env("_OCI_SYNCPIPE", "3").env("LD_PRELOAD", "").run()?;
    let seen = run.ok()?.report()?;
    let list: Vec<String> =
        seen["env"].as_array().into_iter().flatten().filter_map(|v| v.as_str()).map(Into::into).collect();
    for wanted in ["PATH=/bin", "A=", "B=x=y", "EMPTY="] {
        check!(list.iter().any(|v| v == wanted), "no {wanted:?} in {list:?}");
    }
    let allowed = ["PATH", "A", "B", "EMPTY", "HOME"];
    for variable in &list {
        let key = variable.split('=').next().unwrap_or_default();
        check!(allowed.contains(&key), "{variable:?} is not in the configuration");
    }
    Ok(())
}

fn path_finds_the_program(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    std::fs::create_dir_all(bundle.rootfs.join("opt/deep"))?;
    std::fs::rename(bundle.rootfs.join("bin/guest"), bundle.rootfs.join("opt/deep/seeker"))?;
    bundle.set("/process/env", json!(["PATH=/nowhere:/opt/deep"])).set("/process/args", json!(["seeker", "report"]));
    check_eq!(bundle.report()?["args"][0], json!("seeker"), "argv[0]");
    Ok(())
}

fn relative_program(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/cwd", "/bin").set("/process/args", json!(["./guest", "report"]));
    check_eq!(bundle.report()?.text("cwd"), "/bin", "cwd");
    Ok(())
}

fn home_comes_from_passwd(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    check_eq!(bundle.report()?.env("HOME").as_deref(), Some("/home/sailor"), "HOME");
    Ok(())
}

fn home_is_kept_if_set(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.push("/process/env", "HOME=/mnt");
    check_eq!(bundle.report()?.env("HOME").as_deref(), Some("/mnt"), "HOME");
    Ok(())
}

fn cwd_is_set(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    check_eq!(bundle.set("/process/cwd", "/tmp").report()?.text("cwd"), "/tmp", "cwd");
    Ok(())
}

fn cwd_is_made_if_missing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    check_eq!(bundle.set("/process/cwd", "/srv/new/place").report()?.text("cwd"), "/srv/new/place", "cwd");
    check!(bundle.rootfs.join("srv/new/place").is_dir(), "cwd was not made in the root file system");
    Ok(())
}

/// runc and crun try again after they have become the user (moby#43902: NFS with root_squash).
fn cwd_of_the_user(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let dir = bundle.directory("/private")?;
    std::os::unix::fs::chown(&dir, Some(1000), Some(1000))?;
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    bundle.remove("/process/capabilities").set("/process/user", json!({"uid": 1000, "gid": 1000}));
    check_eq!(bundle.set("/process/cwd", "/private").report()?.text("cwd"), "/private", "cwd");
    Ok(())
}

fn user_and_group(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/process/user", json!({"uid": 1234, "gid": 5678})).report()?;
    check_eq!(seen["uids"], json!([1234, 1234, 1234, 1234]), "uids");
    check_eq!(seen["gids"], json!([5678, 5678, 5678, 5678]), "gids");
    check_eq!(seen["groups"], json!([]), "groups");
    Ok(())
}

fn additional_gids(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [10, 4_000_000_000u32, 20]}));
    let seen = bundle.report()?;
    check_eq!(seen["groups"], json!([10, 20, 4_000_000_000u32]), "groups");
    Ok(())
}

fn no_groups_of_the_caller(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let setpriv = ctx.need_program("setpriv")?;
    let container = bundle.container()?;
    let run = ctx.command(&setpriv.to_string_lossy()).args(["--groups", "4,5,6", "--"]).arg(&ctx.runtime);
    let run = run.arg("--root").arg(&ctx.root).args(["run", "--bundle"]).arg(&bundle.dir).arg(&container.id).run()?;
    check_eq!(run.ok()?.report()?["groups"], json!([]), "groups");
    Ok(())
}

fn umask_is_set(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/process/user/umask", 0o027).report()?;
    check_eq!(seen.number("umask"), 0o027, "umask");
    Ok(())
}

fn umask_of_the_caller(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle
        .set("/linux/devices", json!([{"path": "/dev/extra", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}]));
    bundle.guest(&["report", ",", "stat", "/dev/extra", ",", "stat", "/dev/null", ",", "stat", "/mnt/made"]);
    bundle.mount("/mnt/made", "tmpfs", "tmpfs", &["mode=0777"]);
    let run = bundle.run_command()?.before_exec(BeforeExec::Umask(0o077)).run()?.ok()?;
    check_eq!(run.report()?.number("umask"), 0o022, "umask");
    let modes: Vec<_> = run.lines().iter().filter_map(|l| l["stat"]["mode"].as_u64()).collect();
    check_eq!(modes, [0o666, 0o666, 0o777], "modes of /dev/extra, /dev/null and a tmpfs");
    Ok(())
}

fn rlimits_are_exact(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 321, "hard": 654},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 1024},
            {"type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608},
        ]),
    );
    let seen = bundle.report()?;
    check_eq!(seen.rlimit("RLIMIT_NOFILE"), (321, 654), "RLIMIT_NOFILE");
    check_eq!(seen.rlimit("RLIMIT_CORE"), (0, 1024), "RLIMIT_CORE");
    check_eq!(seen.rlimit("RLIMIT_STACK"), (4_194_304, 8_388_608), "RLIMIT_STACK");
    Ok(())
}

fn rlimits_of_every_type(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let host = ctx.guest_command().run()?.ok()?.report()?;
    let names = [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ];
    // One less than the host's hard limit needs no privilege; an unlimited one gets a large number.
    let lowered = |name: &str| match host.rlimit(name).1 {
        u64::MAX => 1 << 40,
        0 => 0,
        n => n - 1,
    };
    let list: Vec<_> = names.iter().map(|n| format!("RLIMIT_{n}")).collect();
    bundle.set(
        "/process/rlimits",
        json!(list.iter().map(|n| json!({"type": n, "soft": lowered(n), "hard": lowered(n)})).collect::<Vec<_>>()),
    );
    let seen = bundle.report()?;
    for name in &list {
        check_eq!(seen.rlimit(name), (lowered(name), lowered(name)), "{name}");
    }
    Ok(())
}

fn rlimits_with_a_user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 4096}]));
    let seen =
        bundle.run_command()?.before_exec(BeforeExec::Rlimit(libc::RLIMIT_NOFILE, 512, 4096)).run()?.ok()?.report()?;
    check_eq!(seen.rlimit("RLIMIT_NOFILE"), (100, 4096), "RLIMIT_NOFILE");
    Ok(())
}

fn capabilities_bounding(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/capabilities", json!({"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_RAW"]}));
    let seen = bundle.report()?;
    check_eq!(
        seen.capabilities("bounding"),
        capability_bits(&["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_RAW"]),
        "bounding"
    );
    check_eq!(seen.capabilities("inheritable"), 0, "inheritable");
    Ok(())
}

fn capabilities_effective_and_permitted(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    // An ordinary user without ambient capabilities loses them at execve; root keeps what is in the bounding set.
    bundle.set("/process/capabilities", json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN", "CAP_KILL"],
    }));
    let seen = bundle.report()?;
    let both = capability_bits(&["CAP_CHOWN", "CAP_KILL"]);
    check_eq!(seen.capabilities("effective"), both, "effective");
    check_eq!(seen.capabilities("permitted"), both, "permitted");
    check_eq!(seen.capabilities("ambient"), 0, "ambient");
    Ok(())
}

fn capabilities_inheritable(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_KILL"],
        }),
    );
    check_eq!(bundle.report()?.capabilities("inheritable"), capability_bits(&["CAP_KILL"]), "inheritable");
    Ok(())
}

fn capabilities_ambient(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let sets = json!(["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    bundle.set("/process/capabilities", json!({
        "bounding": sets, "permitted": sets, "effective": sets, "inheritable": sets, "ambient": ["CAP_NET_BIND_SERVICE"],
    }));
    let seen = bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).report()?;
    let one = capability_bits(&["CAP_NET_BIND_SERVICE"]);
    check_eq!(seen.capabilities("ambient"), one, "ambient");
    check_eq!(seen.capabilities("effective"), one, "effective of an ordinary user after execve");
    Ok(())
}

fn capabilities_absent_are_none(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.remove("/process/capabilities").report()?;
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        check_eq!(seen.capabilities(set), 0, "{set}");
    }
    Ok(())
}

fn capabilities_of_an_ordinary_user(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).report()?;
    check_eq!(seen.capabilities("effective"), 0, "effective");
    check_eq!(seen.capabilities("permitted"), 0, "permitted");
    Ok(())
}

fn capability_unknown_is_a_warning(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/capabilities/bounding", json!(["CAP_CHOWN", "CAP_TEAPOT"]));
    let run = bundle.run()?.ok()?;
    check_eq!(run.report()?.capabilities("bounding"), capability_bits(&["CAP_CHOWN"]), "bounding");
    check!(run.err().contains("CAP_TEAPOT"), "no warning names CAP_TEAPOT: {:?}", run.err());
    Ok(())
}

fn capability_unavailable_is_a_warning(ctx: &Context) -> Outcome {
    let have = all_capabilities();
    if have.contains(&"CAP_SYS_RESOURCE".to_owned()) {
        skip!("root has CAP_SYS_RESOURCE here");
    }
    let mut bundle = ctx.bundle()?;
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_CHOWN", "CAP_SYS_RESOURCE"]));
    }
    check_eq!(bundle.report()?.capabilities("effective"), capability_bits(&["CAP_CHOWN"]), "effective");
    Ok(())
}

fn no_new_privileges_on(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    check_eq!(bundle.set("/process/noNewPrivileges", true).report()?.number("no_new_privs"), 1, "no_new_privs");
    Ok(())
}

fn no_new_privileges_off(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    check_eq!(bundle.set("/process/noNewPrivileges", false).report()?.number("no_new_privs"), 0, "no_new_privs");
    check_eq!(bundle.remove("/process/noNewPrivileges").report()?.number("no_new_privs"), 0, "without the property");
    Ok(())
}

fn oom_score_adj_is_set(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    check_eq!(bundle.set("/process/oomScoreAdj", 345).report()?.number("oom_score_adj"), 345, "oom_score_adj");
    Ok(())
}

fn oom_score_adj_unset(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let host = ctx.guest_command().run()?.ok()?.report()?.number("oom_score_adj");
    check_eq!(bundle.report()?.number("oom_score_adj"), host, "oom_score_adj");
    Ok(())
}

fn oom_score_adj_with_a_user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    check_eq!(bundle.set("/process/oomScoreAdj", 100).report()?.number("oom_score_adj"), 100, "oom_score_adj");
    Ok(())
}

fn scheduler_other(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 7})).report()?;
    check_eq!(seen["scheduler"]["policy"], json!(0), "policy");
    check_eq!(seen["scheduler"]["nice"], json!(7), "nice");
    Ok(())
}

fn scheduler_batch(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": -3})).report()?;
    check_eq!(seen["scheduler"]["policy"], json!(3), "policy");
    check_eq!(seen["scheduler"]["nice"], json!(-3), "nice");
    Ok(())
}

fn scheduler_idle(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/process/scheduler", json!({"policy": "SCHED_IDLE"})).report()?;
    check_eq!(seen["scheduler"]["policy"], json!(5), "policy");
    Ok(())
}

/// Real time needs a budget in the cgroup where CONFIG_RT_GROUP_SCHED is on; then the kernel refuses.
fn real_time(ctx: &Context, policy: &str, number: u32) -> Outcome {
    if !ctx.is_v2() && ctx.cgroups.path("cpu", "/").join("cpu.rt_runtime_us").exists() {
        skip!("real-time group scheduling gives new cgroups no budget");
    }
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/process/scheduler", json!({"policy": policy, "priority": 12})).report()?;
    check_eq!(seen["scheduler"]["policy"], json!(number), "policy");
    check_eq!(seen["scheduler"]["priority"], json!(12), "priority");
    Ok(())
}

fn scheduler_fifo(ctx: &Context) -> Outcome {
    real_time(ctx, "SCHED_FIFO", 1)
}

fn scheduler_rr(ctx: &Context) -> Outcome {
    real_time(ctx, "SCHED_RR", 2)
}

fn scheduler_deadline(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set(
        "/process/scheduler",
        json!({
            "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 50_000_000, "period": 100_000_000,
        }),
    );
    let run = bundle.run()?;
    if run.code != 0 && run.err().to_lowercase().contains("busy") {
        skip!("the kernel admits no deadline task here: {}", run.err());
    }
    let seen = run.ok()?.report()?;
    check_eq!(seen["scheduler"]["policy"], json!(6), "policy");
    check_eq!(seen["scheduler"]["runtime"], json!(1_000_000), "runtime");
    check_eq!(seen["scheduler"]["deadline"], json!(50_000_000), "deadline");
    check_eq!(seen["scheduler"]["period"], json!(100_000_000), "period");
    Ok(())
}

fn scheduler_reset_on_fork(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}));
    let seen = bundle.report()?;
    check_eq!(seen["scheduler"]["policy"], json!(3), "policy");
    check_eq!(seen["scheduler"]["flags"], json!(1), "flags");
    Ok(())
}

fn io_priority(ctx: &Context, class: &str, priority: u32, expected: [i64; 2]) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/process/ioPriority", json!({"class": class, "priority": priority})).report()?;
    check_eq!(seen["io_priority"], json!(expected), "class and level");
    Ok(())
}

fn io_priority_best_effort(ctx: &Context) -> Outcome {
    io_priority(ctx, "IOPRIO_CLASS_BE", 6, [2, 6])
}

fn io_priority_idle(ctx: &Context) -> Outcome {
    io_priority(ctx, "IOPRIO_CLASS_IDLE", 0, [3, 0])
}

fn io_priority_real_time(ctx: &Context) -> Outcome {
    io_priority(ctx, "IOPRIO_CLASS_RT", 2, [1, 2])
}

fn two_cpus() -> Outcome {
    let all = std::thread::available_parallelism()?.get();
    if all < 2 {
        skip!("needs two CPUs");
    }
    Ok(())
}

fn exec_cpu_affinity_final(ctx: &Context) -> Outcome {
    two_cpus()?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/execCPUAffinity", json!({"initial": "0", "final": "1"})).guest(&["sleep"]);
    let container = bundle.start()?;
    check_eq!(container.exec(&["report"])?.ok()?.report()?.text("affinity"), "1", "affinity of exec");
    let mut process = container.process(&["report"]);
    process["execCPUAffinity"] = json!({"final": "0-1"});
    check_eq!(container.exec_process(&process)?.ok()?.report()?.text("affinity"), "0-1", "affinity by --process");
    container.end()
}

fn exec_cpu_affinity_initial(ctx: &Context) -> Outcome {
    two_cpus()?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let mut process = container.process(&["report"]);
    process["execCPUAffinity"] = json!({"initial": "1"});
    // Without `final` the process keeps `initial` (runc, and config.md: final is optional) or gets all CPUs.
    let seen = container.exec_process(&process)?.ok()?.report()?.text("affinity");
    check!(seen == "1" || seen.starts_with("0-"), "affinity {seen:?}");
    container.end()
}

fn exec_resets_cpu_affinity(ctx: &Context) -> Outcome {
    two_cpus()?;
    let taskset = ctx.need_program("taskset")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let all = ctx.guest_command().run()?.ok()?.report()?.text("affinity");
    let command =
        ctx.command(&taskset.to_string_lossy()).args(["-c", "1"]).arg(&ctx.runtime).arg("--root").arg(&ctx.root);
    let run = command.args(["exec", &container.id, "/bin/guest", "report"]).run()?;
    check_eq!(run.ok()?.report()?.text("affinity"), all, "affinity of exec");
    container.end()
}

fn personality_linux32(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/linux/personality", json!({"domain": "LINUX32"})).report()?;
    check_eq!(seen.text("machine"), "i686", "machine");
    Ok(())
}

fn personality_of_exec(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.set("/linux/personality", json!({"domain": "LINUX32"})).guest(&["sleep"]).start()?;
    check_eq!(container.exec(&["report"])?.ok()?.report()?.text("machine"), "i686", "machine");
    container.end()
}

fn personality_linux(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/linux/personality", json!({"domain": "LINUX"})).report()?;
    check!(seen.text("machine") != "i686", "machine is {:?}", seen.text("machine"));
    Ok(())
}

fn memory_policy(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle
        .set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}))
        .report()?;
    check_eq!(seen["memory_policy"], json!([2 | 1 << 15, 1]), "mode with flags, nodes");
    let seen = bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"})).report()?;
    check_eq!(seen["memory_policy"], json!([3, 1]), "mode, nodes");
    let seen = bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_LOCAL"})).report()?;
    check_eq!(seen["memory_policy"][0], json!(4), "mode");
    Ok(())
}

fn pid_one_leads_a_session(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.report()?;
    check_eq!(seen.number("pid"), 1, "pid");
    check_eq!(seen.number("sid"), 1, "session");
    check_eq!(seen.number("pgid"), 1, "process group");
    check_eq!(seen.text("comm"), "guest", "comm");
    Ok(())
}

fn ignored_signals(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let command = bundle.run_command()?;
    let run = [libc::SIGPIPE, libc::SIGUSR1, libc::SIGHUP, libc::SIGCHLD, libc::SIGTTOU]
        .into_iter()
        .fold(command, |c, s| c.before_exec(BeforeExec::IgnoreSignal(s)))
        .run()?;
    check_eq!(ignored(&run.ok()?.report()?), 0, "ignored signals");
    Ok(())
}

fn blocked_signals(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let command = bundle.run_command()?;
    let run = [libc::SIGUSR1, libc::SIGTERM, libc::SIGCHLD]
        .into_iter()
        .fold(command, |c, s| c.before_exec(BeforeExec::BlockSignal(s)))
        .run()?;
    check_eq!(run.ok()?.report()?.number("signals_blocked"), 0, "blocked signals");
    Ok(())
}

/// Signals that the process ignores, as bits, without the two that the C library keeps for itself: its posix_spawn(3) leaves
/// them ignored in whatever starts the runtime.
fn ignored(report: &crate::harness::report::Report) -> i64 {
    report.number("signals_ignored") & !(0b11 << 31)
}

fn sigpipe_is_not_ignored(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    check_eq!(ignored(&container.report()?), 0, "ignored signals of create");
    check_eq!(ignored(&container.exec(&["report"])?.ok()?.report()?), 0, "ignored signals of exec");
    container.end()
}

fn two_megabytes(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let size = 2 * 1024 * 1024;
    let run = bundle.guest(&["stdin"]).run_command()?.stdin(vec![7u8; size]).run()?.ok()?;
    check_eq!(run.said("stdin")?, json!({"bytes": size, "sum": size * 7, "errno": 0}), "input");
    let run = bundle.guest(&["bytes", &size.to_string()]).run()?.ok()?;
    check_eq!(run.stdout.len(), size, "bytes of output");
    Ok(())
}

fn stderr_is_apart(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let run = bundle.guest(&["print", "one", ",", "error", "two", ",", "exit", "3"]).run()?.exits(3)?;
    check_eq!(run.out(), "one\n", "stdout");
    check_eq!(run.err(), "two\n", "stderr");
    Ok(())
}

fn only_stdio_is_open(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let seen = container.report()?.descriptors();
    check!(seen.iter().map(|d| d.0).eq(0..=2), "descriptors of create: {seen:?}");
    container.end()?;
    let seen = bundle.guest(&["report"]).report()?.descriptors();
    check!(seen.iter().map(|d| d.0).eq(0..=2), "descriptors of run: {seen:?}");
    Ok(())
}

fn descriptors_of_the_caller(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let directory: OwnedFd = File::open("/")?.into();
    let file: OwnedFd = File::open("/etc/passwd")?.into();
    let seen = bundle.run_command()?.fd(7, directory).fd(12, file).run()?.ok()?.report()?.descriptors();
    check!(seen.iter().all(|d| d.0 <= 2), "descriptors: {seen:?}");
    Ok(())
}

fn text_file(ctx: &Context, text: &str) -> Outcome<OwnedFd> {
    let path = ctx.next_io().with_extension("text");
    std::fs::write(&path, text)?;
    Ok(File::open(path)?.into())
}

fn preserve_fds(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.option("--preserve-fds").option("2").guest(&["report", ",", "fd-read", "3", ",", "fd-read", "4"]);
    let command = bundle.run_command()?.fd(3, text_file(ctx, "three")?).fd(4, text_file(ctx, "four")?);
    let run = command.fd(5, text_file(ctx, "five")?).run()?.ok()?;
    let numbers: Vec<i32> = run.report()?.descriptors().iter().map(|d| d.0).collect();
    check_eq!(numbers, [0, 1, 2, 3, 4], "descriptors");
    Ok(())
}

fn preserve_fds_missing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.option("--preserve-fds").option("3");
    bundle.run_command()?.fd(3, text_file(ctx, "three")?).run()?.fails_saying(&["preserve-fds"])?;
    Ok(())
}

/// Counts that no integer of the kernel's holds wrap around nowhere.
fn preserve_fds_overflow(ctx: &Context) -> Outcome {
    for count in ["2147483645", "2147483647", "4294967293", "4294967295"] {
        let mut bundle = ctx.bundle()?;
        bundle.option("--preserve-fds").option(count).guest(&["exit", "0"]);
        bundle.run_command()?.fd(3, text_file(ctx, "three")?).run()?.fails()?;
        if ctx.peer == Peer::Runc {
            // It would make as many files as LISTEN_FDS says.
            continue;
        }
        let mut bundle = ctx.bundle()?;
        let script = format!("export LISTEN_PID=$$ LISTEN_FDS={count}; exec \"$@\"");
        let container = bundle.guest(&["exit", "0"]).container()?;
        let command = ctx.command("/bin/sh").args(["-c", &script, "sh"]).arg(&ctx.runtime).arg("--root").arg(&ctx.root);
        command.args(["run", "--bundle"]).arg(&bundle.dir).arg(&container.id).run()?.fails()?;
    }
    Ok(())
}

fn listen_fds(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["report"]).container()?;
    // LISTEN_PID must name the runtime itself: a shell knows its own number before it becomes the runtime.
    let script = "export LISTEN_PID=$$; exec \"$@\"";
    let run = ctx
        .command("/bin/sh")
        .args(["-c", script, "sh"])
        .arg(&ctx.runtime)
        .arg("--root")
        .arg(&ctx.root)
        .args(["run", "--bundle"])
        .arg(&bundle.dir)
        .arg(&container.id)
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "a:b")
        .fd(3, text_file(ctx, "three")?)
        .fd(4, text_file(ctx, "four")?)
        .run()?;
    let seen = run.ok()?.report()?;
    check_eq!(seen.env("LISTEN_FDS").as_deref(), Some("2"), "LISTEN_FDS");
    check_eq!(seen.env("LISTEN_PID").as_deref(), Some("1"), "LISTEN_PID");
    let numbers: Vec<i32> = seen.descriptors().iter().map(|d| d.0).collect();
    check_eq!(numbers, [0, 1, 2, 3, 4], "descriptors");
    Ok(())
}

fn notify_socket(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let path = ctx.dir.join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(ctx.patience))?;
    bundle.guest(&["report", ",", "notify", "READY=1", ",", "until", "/tmp/go"]);
    let running = bundle.run_command()?.env("NOTIFY_SOCKET", &path).spawn()?;
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains("READY=1") {
        let count = socket.recv(&mut buffer).map_err(|e| format!("waiting for READY=1: {e}; {}", running.stderr()))?;
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    std::fs::write(bundle.rootfs.join("tmp/go"), "")?;
    let run = running.wait()?.ok()?;
    check!(run.report()?.env("NOTIFY_SOCKET").is_some(), "NOTIFY_SOCKET is not in the container's environment");
    Ok(())
}

/// A manager that starts again is not the container's end.
fn notify_gone(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["notify", "STATUS=x", ",", "notify", "READY=1", ",", "exit", "5"]);
    bundle.run_command()?.env("NOTIFY_SOCKET", ctx.dir.join("gone.sock")).run()?.exits(5)?;
    Ok(())
}

/// What exec runs is not the service that the container may be, and no socket is made for it.
fn notify_exec(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let exec = |options: &[&str]| {
        let command = container.exec_command(options, &["/bin/guest", "report"]);
        command.env("NOTIFY_SOCKET", ctx.dir.join("notify.sock")).run()?.ok()?.report()
    };
    check_eq!(exec(&[])?.env("NOTIFY_SOCKET"), None, "NOTIFY_SOCKET of exec");
    check_eq!(exec(&["--env", "NOTIFY_SOCKET=/own"])?.env("NOTIFY_SOCKET"), Some("/own".into()), "what exec was told");
    container.end()
}

/// The directory of the socket is the host's: on its /run, which is small.
fn notify_read_only(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let path = ctx.dir.join("notify.sock");
    let _socket = std::os::unix::net::UnixDatagram::bind(&path)?;
    let words = ["write", "/run/notify/big", "x", ",", "notify", "READY=1"];
    let run = bundle.guest(&words).run_command()?.env("NOTIFY_SOCKET", &path).run()?.ok()?;
    check_eq!(run.said("write")?["errno"], json!(libc::EROFS), "errno of writing beside the socket");
    Ok(())
}

/// What is inherited as a pipe can be reopened by the container's user (runc: fixStdioPermissions).
fn stdio_belongs_to_the_user(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let mut container =
        bundle.guest(&["open", "/dev/stdout", "w", ",", "open", "/dev/stderr", "w", ",", "sleep"]).start()?;
    check_eq!(container.hear("open")?["errno"], json!(0), "errno of opening /dev/stdout");
    container.end()
}

fn session_keyring_is_new(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    crate::sys::new_session_keyring()?;
    crate::sys::add_session_key(c"kelson-test-secret")?;
    let seen = bundle.guest(&["key-find", "kelson-test-secret"]).run()?.ok()?.said("key")?;
    check!(seen["errno"] != json!(0), "the container finds a key of its caller: {seen}");
    Ok(())
}

fn session_keyring_is_kept(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let own = crate::sys::new_session_keyring()?;
    let seen = bundle.option("--no-new-keyring").report()?;
    check_eq!(seen.number("session_keyring"), own, "session keyring");
    Ok(())
}

fn dumpable(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    check_eq!(bundle.report()?.number("dumpable"), 1, "dumpable after execve");
    Ok(())
}

fn securebits(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    check_eq!(bundle.report()?.number("securebits"), 0, "securebits (keep_caps must be off again)");
    Ok(())
}

fn exec_user(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let guest = ["/bin/guest", "report"];
    let seen = container.exec_command(&["--user", "1000:2000"], &guest).run()?.ok()?.report()?;
    check_eq!(seen["uids"], json!([1000, 1000, 1000, 1000]), "uids");
    check_eq!(seen["gids"], json!([2000, 2000, 2000, 2000]), "gids");
    check_eq!(seen.capabilities("effective"), 0, "effective capabilities of an ordinary user");
    container.end()
}

fn exec_process_properties(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let mut process = container.process(&["report"]);
    process["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9], "umask": 0o077});
    process["cwd"] = json!("/tmp");
    process["env"] = json!(["X=1", "PATH=/bin"]);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66}]);
    process["capabilities"] = json!({"bounding": ["CAP_KILL"]});
    process["noNewPrivileges"] = json!(true);
    process["oomScoreAdj"] = json!(77);
    let seen = container.exec_process(&process)?.ok()?.report()?;
    check_eq!(seen["uids"][0], json!(7), "uid");
    check_eq!(seen["gids"][0], json!(8), "gid");
    check_eq!(seen["groups"], json!([9]), "groups");
    check_eq!(seen.number("umask"), 0o077, "umask");
    check_eq!(seen.text("cwd"), "/tmp", "cwd");
    check_eq!(seen.env("X").as_deref(), Some("1"), "X");
    check_eq!(seen.rlimit("RLIMIT_NOFILE"), (55, 66), "RLIMIT_NOFILE");
    check_eq!(seen.capabilities("bounding"), capability_bits(&["CAP_KILL"]), "bounding");
    check_eq!(seen.number("no_new_privs"), 1, "no_new_privs");
    check_eq!(seen.number("oom_score_adj"), 77, "oom_score_adj");
    container.end()
}

/// /dev/stdin, or a shell's `<(...)`; its words may come later.
fn exec_process_from_a_pipe(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let process = serde_json::to_vec(&container.process(&["report"]))?;
    let out = ctx.dir.join("out");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let exec = container.verb("exec").args(["--process", "/proc/self/fd/0", &container.id]);
    let running = exec.fd(0, read).fd(1, File::create(&out)?).spawn()?;
    let mut write = std::fs::File::from(write);
    for part in process.chunks(process.len() / 2) {
        write.write_all(part)?;
    }
    drop(write);
    running.wait()?.ok()?;
    check!(std::fs::read_to_string(&out)?.contains("report"), "the process did not run");
    if ctx.peer == Peer::Kelson {
        let fifo = ctx.dir.join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
        let run = container.verb("exec").arg("--process").arg(&fifo).arg(&container.id).run()?;
        run.fails_saying(&["fifo", "empty"])?;
    }
    container.end()
}

/// What is left out is the container's; what is empty is empty.
fn exec_process_without_properties(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/oomScoreAdj", 77).set("/process/rlimits", json!([]));
    let container = bundle.guest(&["sleep"]).start()?;
    let granted = capability_bits(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let seen = container.exec_process(&container.process(&["report"]))?.ok()?.report()?;
    for set in ["bounding", "effective", "permitted"] {
        check_eq!(seen.capabilities(set), granted, "{set} of a process without capabilities");
    }
    check_eq!(seen.number("oom_score_adj"), 77, "oom_score_adj");
    let mut process = container.process(&["report"]);
    process["capabilities"] = json!({});
    let seen = container.exec_process(&process)?.ok()?.report()?;
    check_eq!(seen.capabilities("bounding"), 0, "bounding of a process with empty capabilities");
    container.end()
}

fn exec_cap_unknown(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.push("/process/capabilities/bounding", "CAP_OF_TOMORROW");
    let container = bundle.guest(&["sleep"]).start()?;
    let run = container.exec_command(&["--cap", "CAP_NONE"], &["/bin/guest", "report"]).run()?.ok()?;
    check_eq!(run.report()?.capabilities("bounding") & 1, 0, "bounding");
    if ctx.peer == Peer::Kelson {
        check!(run.err().contains("CAP_NONE"), "no warning of --cap: {}", run.told());
        check!(!run.err().contains("CAP_OF_TOMORROW"), "the config is warned of again: {}", run.told());
    }
    container.end()
}

fn exec_keeps_no_new_privileges(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.set("/process/noNewPrivileges", true).guest(&["sleep"]).start()?;
    check_eq!(container.exec(&["report"])?.ok()?.report()?.number("no_new_privs"), 1, "no_new_privs of exec");
    container.end()
}

fn exec_is_in_all_namespaces(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.namespace("cgroup", None).user_namespace(&[(0, 100_000, 65536)])?;
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let init = container.report()?;
    let seen = container.exec(&["report"])?.ok()?.report()?;
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        check_eq!(seen.namespace(kind), init.namespace(kind), "{kind} namespace of exec");
    }
    check_eq!(seen["cgroup"], init["cgroup"], "cgroup of exec");
    container.end()
}

fn exec_descriptors(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let directory: OwnedFd = File::open("/")?.into();
    let run = container.exec_command(&[], &["/bin/guest", "report"]).fd(9, directory).run()?;
    let seen = run.ok()?.report()?.descriptors();
    check!(seen.iter().map(|d| d.0).eq(0..=2), "descriptors of exec: {seen:?}");
    container.end()
}

fn exec_no_keyring(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.option("--no-new-keyring").guest(&["sleep"]).start()?;
    let own = crate::sys::new_session_keyring()?;
    let seen = container.exec(&["report"])?.ok()?.report()?;
    check_eq!(seen.number("session_keyring"), own, "session keyring of exec");
    container.end()
}

fn exec_keyring(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let own = crate::sys::new_session_keyring()?;
    crate::sys::add_session_key(c"kelson-test-secret")?;
    let run = container.exec(&["report", ",", "key-find", "kelson-test-secret"])?.ok()?;
    check!(run.report()?.number("session_keyring") != own, "exec has its caller's session keyring");
    check!(run.said("key")?["errno"] != json!(0), "exec finds a key of its caller");
    container.end()
}
