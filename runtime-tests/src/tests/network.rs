//! Networks of containers of images: pasta, CNI plugins and netavark, in a network namespace of the test's own.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::bundle::give;
use crate::harness::{Cmd, Context, Failure, Outcome, Run, Test, Value, children, eventually, json};
use crate::{check, check_eq, sys};

pub const TESTS: &[Test] = &[
    Test { name: "pasta_publishes_a_port", run: pasta_port },
    Test { name: "pasta_of_an_ordinary_user", run: pasta_rootless },
    Test { name: "pasta_tells_the_container_of_itself", run: pasta_files },
    Test { name: "pasta_has_the_host_at_the_gateway", run: pasta_gateway },
    Test { name: "pasta_ends_with_a_killed_container", run: pasta_ends },
    Test { name: "pasta_ends_by_delete_when_its_watcher_was_killed", run: pasta_unwatched },
    Test { name: "pasta_that_fails_leaves_nothing", run: pasta_fails },
    Test { name: "cni_bridge_between_containers", run: cni_bridge },
    Test { name: "cni_takes_down_what_a_crash_left", run: cni_crash },
    Test { name: "cni_that_fails_leaves_nothing", run: cni_fails },
    Test { name: "netavark_bridge_between_containers", run: netavark_bridge },
    Test { name: "netavark_that_fails_leaves_nothing", run: netavark_fails },
    Test { name: "without_pasta_there_is_a_warning", run: default_without_pasta },
    Test { name: "bundle_has_the_hooks", run: bundle_hooks },
];

const USER: u32 = 61_000;
/// The test's own host, as others see it.
const HOST: &str = "192.0.2.2";
const PATIENCE: Duration = Duration::from_secs(20);

/// An image with busybox in it, and a host of the test's own to run it on.
struct Host<'c> {
    ctx: &'c Context,
    image: PathBuf,
    store: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl<'c> Host<'c> {
    fn new(ctx: &'c Context) -> Outcome<Self> {
        ctx.need_kelson("run --image")?;
        ctx.need_new_syscalls("unpacking an image")?;
        if !ctx.runtime.with_file_name("kelson-image").exists() {
            return Err(Failure::Skipped("kelson-image is not built".into()));
        }
        let busybox = ctx.need_program("busybox")?;
        ctx.need_program("ip")?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        for words in [
            "link set lo up",
            "link add up0 type veth peer name up1",
            "link set up1 up",
            "link set up0 up",
            "addr add 192.0.2.2/24 dev up0",
            "route add default via 192.0.2.1",
        ] {
            ctx.command("ip").args(words.split(' ')).run()?.ok()?;
        }
        let (image, store) = (image(ctx, &busybox)?, ctx.dir.join("store"));
        Ok(Self { ctx, image, store, environment: vec![] })
    }

    /// `run --image` of `id` with these options and words.
    fn run(&self, id: &str, words: &[&str], program: &[&str]) -> Cmd<'c> {
        let mut command = self.ctx.runtime().args(["run", "--name", id, "--store"]).arg(&self.store).args(words);
        for (key, value) in &self.environment {
            command = command.env(key, value);
        }
        command.arg("--image").arg(&self.image).args(program)
    }

    /// Starts a web server that tells its host name.
    fn serve(&self, id: &str, words: &[&str]) -> Outcome<i32> {
        let words = [&["-d", "--hostname", id], words].concat();
        self.run(id, &words, &["httpd", "-f", "-p", "80", "-h", "/etc"]).run()?.ok()?;
        self.pid(id)
    }

    fn pid(&self, id: &str) -> Outcome<i32> {
        let state = self.ctx.runtime().args(["state", id]).run()?.ok()?.json()?;
        Ok(state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid in the state")?)
    }

    /// Waits until `address` serves the name of `id`: the server may just have been started.
    fn reach(&self, address: &str, id: &str) -> Outcome {
        eventually(PATIENCE, &format!("{address} serves {id}"), || {
            get(address).ok().filter(|answer| answer.lines().last() == Some(id))
        })?;
        Ok(())
    }

    fn delete(&self, id: &str) -> Outcome<Run> {
        self.ctx.runtime().args(["delete", "--force", id]).run()?.ok()
    }

    /// Neither the record of a network nor a namespace that was kept is there.
    fn check_no_record(&self) -> Outcome {
        check_eq!(self.ctx.state_entries(), Vec::<String>::new(), "what is left in the state directory");
        Ok(())
    }

    /// No interface of a container, and no rule that names `id`.
    fn check_no_traces(&self, id: &str) -> Outcome {
        self.check_no_record()?;
        let links = self.ctx.command("ip").args(["-br", "link"]).run()?.ok()?.out();
        let left: Vec<&str> = links
            .lines()
            .filter(|line| !["lo", "up0", "up1", "test"].iter().any(|own| line.starts_with(own)))
            .collect();
        check_eq!(left, Vec::<&str>::new(), "interfaces that are left");
        for program in ["iptables-save", "ip6tables-save"] {
            let rules = self.ctx.command(program).run()?.out();
            let left: Vec<&str> = rules.lines().filter(|line| line.contains(id) || line.contains("10.99.")).collect();
            check_eq!(left, Vec::<&str>::new(), "rules that are left");
        }
        Ok(())
    }
}

/// What the web server at `address` (`HOST[:PORT]`) answers.
fn get(address: &str) -> std::io::Result<String> {
    let address = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// An image as docker once saved it, with busybox and links to it.
fn image(ctx: &Context, busybox: &Path) -> Outcome<PathBuf> {
    let (root, image) = (ctx.new_dir("layer")?, ctx.new_dir("image")?);
    let id = "a".repeat(64);
    fs::create_dir(root.join("bin"))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for name in ["sh", "httpd", "wget", "sleep", "cat", "true", "hostname"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    let layer = image.join(&id);
    fs::create_dir(&layer)?;
    fs::write(layer.join("VERSION"), "1.0")?;
    let config = json!({
        "id": id, "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
    });
    fs::write(layer.join("json"), config.to_string())?;
    fs::write(image.join("repositories"), json!({"test": {"latest": id}}).to_string())?;
    let tar = ctx.command("tar").arg("-C").arg(&root).arg("-cf").arg(layer.join("layer.tar"));
    tar.args(["--owner=0", "--group=0", "."]).run()?.ok()?;
    Ok(image)
}

/// Processes that pasta and its watcher are: orphans that fell to the test.
fn helpers() -> Vec<(i32, String)> {
    let command = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all = pids.map(|pid| (pid, command(&pid)));
    all.filter(|(_, command)| command.contains("@network/pasta")).collect()
}

/// Those of one container.
fn helpers_of(id: &str) -> Vec<(i32, String)> {
    let mut all = helpers();
    all.retain(|(_, command)| command.contains(&format!("/{id}@network/pasta")));
    all
}

fn no_helpers(id: &str) -> Outcome {
    eventually(PATIENCE, "pasta and its watcher end", || {
        children::reap();
        helpers_of(id).is_empty().then_some(())
    })
}

fn id(ctx: &Context) -> String {
    format!("{}{}", ctx.id_prefix(), ctx.next())
}

fn pasta_port(ctx: &Context) -> Outcome {
    let host = Host::new(ctx)?;
    ctx.need_program("pasta")?;
    let id = id(ctx);
    host.serve(&id, &["--network", "pasta", "-p", "127.0.0.1:8080:80", "-p", "9000-9001:80-81"])?;
    host.reach("127.0.0.1:8080", &id)?;
    host.reach(&format!("{HOST}:9000"), &id)?;
    // What outlives the hook has nothing of the runtime's.
    for (pid, command) in helpers_of(&id) {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let is_own = ["socket:", "pipe:", "anon_inode:", "net:", "/dev/null", "/dev/net/tun"]
                .iter()
                .any(|own| target.to_string_lossy().starts_with(own));
            let is_record = target.to_string_lossy().ends_with("@network");
            check!(is_own || is_record, "{command} has {} open", target.display());
        }
    }
    host.delete(&id)?;
    // Once delete has come back the port is free.
    check_eq!(helpers_of(&id), vec![], "what is left of pasta");
    host.check_no_record()
}

/// /dev/net/tun as on most hosts, where all may open it.
fn open_tun(ctx: &Context) -> Outcome {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let tun = ctx.root.with_file_name("tun");
    mknod(&tun, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200))?;
    fs::set_permissions(&tun, fs::Permissions::from_mode(0o666))?;
    mount(Some(&tun), "/dev/net/tun", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

fn pasta_rootless(ctx: &Context) -> Outcome {
    let host = Host::new(ctx)?;
    ctx.need_program("pasta")?;
    ctx.become_rootless(USER)?;
    fs::create_dir(&host.store)?;
    give(&host.store, USER)?;
    open_tun(ctx)?;
    let seen = (|| {
        let id = id(ctx);
        host.serve(&id, &["--network", "pasta", "-p", "8080:80"])?;
        host.reach("127.0.0.1:8080", &id)?;
        host.delete(&id)?;
        check_eq!(helpers_of(&id), vec![], "what is left of pasta");
        host.check_no_record()?;
        for network in ["bridge", "netavark"] {
            let run = host.run(&id, &["--network", network], &["true"]).run()?;
            run.fails_saying(&["ordinary user", "--network pasta"])?;
        }
        Ok(())
    })();
    umount2("/dev/net/tun", MntFlags::MNT_DETACH)?;
    seen
}

fn pasta_files(ctx: &Context) -> Outcome {
    let host = Host::new(ctx)?;
    ctx.need_program("pasta")?;
    let run =
        host.run(&id(ctx), &["--network", "pasta", "--hostname", "box"], &["cat", "/etc/hosts", "/etc/resolv.conf"]);
    let said = run.run()?.ok()?.out();
    check!(said.contains(&format!("{HOST}\tbox\n")), "no line of the container's own address: {said}");
    check!(!said.contains("127.0.1.1"), "a line of another address: {said}");
    check!(!said.contains("nameserver 127."), "a server that it cannot reach: {said}");
    let run = host.run(&id(ctx), &["--network", "pasta", "--dns", "192.0.2.9"], &["cat", "/etc/resolv.conf"]);
    run.run()?.ok()?.prints("nameserver 192.0.2.9\n")?;
    host.check_no_record()
}

fn pasta_gateway(ctx: &Context) -> Outcome {
    let host = Host::new(ctx)?;
    ctx.need_program("pasta")?;
    let far = ["--add-host", "far:host-gateway", "--network"];
    let run = host.run(&id(ctx), &[&far[..], &["pasta"]].concat(), &["true"]).run()?;
    run.fails_saying(&["--add-host far:host-gateway", "pasta:--map-gw"])?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://far:{}/", listener.local_addr()?.port());
    let words = [&far[..], &["pasta:--map-gw"]].concat();
    let running = host.run(&id(ctx), &words, &["wget", "-q", "-O", "-", &url]).spawn()?;
    let (mut stream, _) = eventually(PATIENCE, "the container reaches the host's loopback", || listener.accept().ok())?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    check!(stream.read(&mut [0; 512])? > 0, "the container asks nothing");
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nthe host\n")?;
    drop(stream);
    running.wait()?.ok()?.prints("the host\n")?;
    host.check_no_record()
}

fn pasta_ends(ctx: &Context) -> Outcome {
    let host = Host::new(ctx)?;
    ctx.need_program("pasta")?;
    let id = id(ctx);
    let pid = host.serve(&id, &["--network", "pasta", "-p", "8080:80"])?;
    check_eq!(helpers_of(&id).len(), 2, "pasta and its watcher");
    sys::kill(pid, libc::SIGKILL)?;
    no_helpers(&id)?;
    host.delete(&id)?;
    host.check_no_record()
}

fn pasta_unwatched(ctx: &Context) -> Outcome {
    let host = Host::new(ctx)?;
    ctx.need_program("pasta")?;
    let id = id(ctx);
    host.serve(&id, &["--network", "pasta", "-p", "8080:80"])?;
    for (pid, command) in helpers_of(&id) {
        if command.contains("network-watch") {
            sys::kill(pid, libc::SIGKILL)?;
        }
    }
    eventually(PATIENCE, "the watcher ends", || {
        children::reap();
        (helpers_of(&id).len() == 1).then_some(())
    })?;
    host.reach("127.0.0.1:8080", &id)?;
    host.delete(&id)?;
    no_helpers(&id)?;
    host.check_no_record()
}

fn pasta_fails(ctx: &Context) -> Outcome {
    let host = Host::new(ctx)?;
    ctx.need_program("pasta")?;
    let taken = TcpListener::bind("0.0.0.0:8080")?;
    let run = host.run(&id(ctx), &["--network", "pasta", "-p", "8080:80"], &["true"]).run()?;
    run.fails_saying(&["hooks.createRuntime[0]", "--network pasta", "bind"])?;
    drop(taken);
    let run = host.run(&id(ctx), &["--network", "pasta:--what"], &["true"]).run()?;
    run.fails_saying(&["unrecognized option", "--what"])?;
    check_eq!(
        helpers().into_iter().filter(|(_, command)| command.contains(&ctx.id_prefix())).count(),
        0,
        "helpers left"
    );
    host.check_no_record()
}

/// Plugins' own, and where this test's networks are configured.
fn with_cni<'c>(ctx: &'c Context, extra: Option<Value>) -> Outcome<Host<'c>> {
    let mut host = Host::new(ctx)?;
    ctx.need_program("iptables")?;
    let plugins = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]
        .into_iter()
        .find(|dir| Path::new(dir).join("bridge").exists());
    let Some(plugins) = plugins else {
        let why = "containernetworking-plugins are not installed".to_owned();
        return Err(if std::env::var_os("CI").is_some() { Failure::Failed(why) } else { Failure::Skipped(why) });
    };
    let (config, own) = (ctx.new_dir("net.d")?, ctx.new_dir("plugins")?);
    let mut list = vec![
        json!({
            "type": "bridge", "bridge": "test0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": leases(ctx), "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.99.1.0/24"}]],
            },
        }),
        json!({"type": "loopback"}),
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "firewall"}),
    ];
    list.extend(extra);
    let network = json!({"cniVersion": "0.4.0", "name": "lan", "plugins": list});
    fs::write(config.join("10-lan.conflist"), network.to_string())?;
    let broken = own.join("broken");
    fs::write(
        &broken,
        "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] || { echo '{\"code\":100,\"msg\":\"broken\",\"details\":\"on purpose\"}'; exit 1; }\n",
    )?;
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755))?;
    host.environment =
        vec![("NETCONFPATH", config.display().to_string()), ("CNI_PATH", format!("{}:{plugins}", own.display()))];
    Ok(host)
}

fn leases(ctx: &Context) -> PathBuf {
    ctx.dir.join("leases")
}

/// Addresses that host-local has given to somebody.
fn leased(ctx: &Context) -> Vec<String> {
    let entries = fs::read_dir(leases(ctx).join("lan")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("10.")).collect()
}

/// The container's address, as its /etc/hosts has it.
fn address(host: &Host<'_>, id: &str) -> Outcome<String> {
    let hosts = host.ctx.runtime().args(["exec", id, "cat", "/etc/hosts"]).run()?.ok()?.out();
    let own = hosts.lines().find_map(|line| line.strip_suffix(id)?.strip_suffix('\t').map(str::to_owned));
    own.ok_or_else(|| format!("no line of {id} in {hosts}").into())
}

/// Two containers of `network` reach each other, and one is published.
fn bridge(host: &Host<'_>, network: &str) -> Outcome<[String; 2]> {
    let ctx = host.ctx;
    let ids = [id(ctx), id(ctx)];
    host.serve(&ids[0], &["--network", network, "-p", "8080:80"])?;
    host.serve(&ids[1], &["--network", network])?;
    let own = address(host, &ids[0])?;
    check!(own.starts_with("10.99."), "{own} is of another network");
    host.reach(&own, &ids[0])?;
    host.reach(&format!("{HOST}:8080"), &ids[0])?;
    let url = format!("http://{own}/hostname");
    let seen = ctx.runtime().args(["exec", &ids[1], "wget", "-q", "-O", "-", &url]).run()?.ok()?;
    check_eq!(seen.out().trim(), ids[0], "what the other container serves");
    Ok(ids)
}

fn cni_bridge(ctx: &Context) -> Outcome {
    let host = with_cni(ctx, None)?;
    let ids = bridge(&host, "cni:lan")?;
    check_eq!(leased(ctx).len(), 2, "leases");
    for id in &ids {
        host.delete(id)?;
    }
    check_eq!(leased(ctx), Vec::<String>::new(), "leases that are left");
    ids.iter().try_for_each(|id| host.check_no_traces(id))?;
    let words = ["--network", "cni:lan", "--add-host", "far:host-gateway"];
    let hosts = host.run(&id(ctx), &words, &["cat", "/etc/hosts"]).run()?.ok()?.out();
    check!(hosts.contains("\n10.99.1.1\tfar\n"), "no line of the host: {hosts}");
    // The first configuration is what `bridge` is, and a name that there is not is an error.
    host.run(&id(ctx), &["--network", "bridge"], &["true"]).run()?.ok()?;
    let run = host.run(&id(ctx), &["--network", "cni:other"], &["true"]).run()?;
    run.fails_saying(&["no network \"other\"", "lan"])?;
    check_eq!(leased(ctx), Vec::<String>::new(), "leases that are left");
    host.check_no_traces(&ids[0])
}

fn cni_crash(ctx: &Context) -> Outcome {
    let host = with_cni(ctx, None)?;
    let id = id(ctx);
    let run = host
        .run(
            &id,
            &["--network", "bridge", "-p", "8080:80", "--hostname", &id],
            &["httpd", "-f", "-p", "80", "-h", "/etc"],
        )
        .spawn()?;
    host.reach(&format!("{HOST}:8080"), &id)?;
    let pid = host.pid(&id)?;
    run.signal(libc::SIGKILL)?;
    run.wait()?;
    sys::kill(pid, libc::SIGKILL)?;
    check_eq!(leased(ctx).len(), 1, "leases of a container that was killed and not deleted");
    host.delete(&id)?;
    check_eq!(leased(ctx), Vec::<String>::new(), "leases that are left");
    host.check_no_traces(&id)
}

fn cni_fails(ctx: &Context) -> Outcome {
    let host = with_cni(ctx, Some(json!({"type": "broken"})))?;
    let one = id(ctx);
    let run = host.run(&one, &["--network", "cni:lan", "-p", "8080:80"], &["true"]).run()?;
    run.fails_saying(&[
        "hooks.createRuntime[0]",
        "--network cni:lan",
        "ADD by the CNI plugin broken",
        "broken: on purpose",
    ])?;
    check_eq!(leased(ctx), Vec::<String>::new(), "leases that are left");
    host.check_no_traces(&one)
}

/// A network for netavark, in a file.
fn with_netavark(ctx: &Context) -> Outcome<(Host<'_>, String)> {
    let host = Host::new(ctx)?;
    ctx.need_program("iptables")?;
    let directories = ["/usr/libexec/podman", "/usr/lib/podman", "/usr/bin"];
    if !directories.iter().any(|dir| Path::new(dir).join("netavark").exists()) {
        let why = "netavark is not installed".to_owned();
        return Err(if std::env::var_os("CI").is_some() { Failure::Failed(why) } else { Failure::Skipped(why) });
    }
    // Leases are kept by this name.
    let network = json!({
        "name": network_name(ctx), "id": "b".repeat(64), "driver": "bridge", "network_interface": "test0",
        "subnets": [{"subnet": "10.99.2.0/24", "gateway": "10.99.2.1"}],
        "ipv6_enabled": false, "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"},
    });
    let file = ctx.dir.join("network.json");
    fs::write(&file, network.to_string())?;
    Ok((host, format!("netavark:{}", file.display())))
}

fn network_name(ctx: &Context) -> String {
    ctx.cgroup_parent.trim_start_matches('/').to_owned()
}

fn check_no_leases(ctx: &Context) -> Outcome {
    let dir = Path::new("/run/kelson-leases").join(network_name(ctx));
    check!(!dir.exists(), "{} is left", dir.display());
    Ok(())
}

fn netavark_bridge(ctx: &Context) -> Outcome {
    let (host, network) = with_netavark(ctx)?;
    let ids = bridge(&host, &network)?;
    for id in &ids {
        host.delete(id)?;
    }
    check_no_leases(ctx)?;
    ids.iter().try_for_each(|id| host.check_no_traces(id))
}

fn netavark_fails(ctx: &Context) -> Outcome {
    let (host, network) = with_netavark(ctx)?;
    let file = ctx.dir.join("network.json");
    let text = fs::read_to_string(&file)?.replace("\"bridge\"", "\"what\"");
    fs::write(&file, text)?;
    let one = id(ctx);
    host.run(&one, &["--network", &network], &["true"]).run()?.fails_saying(&["netavark setup", "what"])?;
    check_no_leases(ctx)?;
    host.check_no_traces(&one)
}

fn default_without_pasta(ctx: &Context) -> Outcome {
    let mut host = Host::new(ctx)?;
    host.environment = vec![("PATH", ctx.new_dir("path")?.display().to_string())];
    let said = host.run(&id(ctx), &["--quiet"], &["/bin/true"]).run()?.ok()?.err();
    check!(said.contains("passt") && said.contains("--network none"), "no warning: {said}");
    let said = host.run(&id(ctx), &["--network", "none"], &["/bin/true"]).run()?.ok()?.err();
    check_eq!(said, "", "what --network none says");
    let run = host.run(&id(ctx), &["--network", "none", "-p", "1:2"], &["/bin/true"]).run()?;
    run.fails_saying(&["--publish", "--network pasta"])?;
    let run = host.run(&id(ctx), &["--network", "pasta"], &["/bin/true"]).run()?;
    // Where it is installed, PATH is not the only place to look in.
    if ctx.need_program("pasta").is_err() {
        run.fails_saying(&["pasta is not installed", "passt", "--network none"])?;
    }
    host.check_no_record()
}

fn bundle_hooks(ctx: &Context) -> Outcome {
    let host = Host::new(ctx)?;
    let dir = ctx.dir.join("made");
    let words = ["bundle", "--network", "pasta", "-p", "8080:80", "--store"];
    ctx.runtime().args(words).arg(&host.store).arg(&host.image).arg(&dir).run()?.ok()?;
    let config: Value = serde_json::from_str(&fs::read_to_string(dir.join("config.json"))?)?;
    for (point, command) in [("createRuntime", "network-up"), ("poststop", "network-down")] {
        let hook = &config["hooks"][point][0];
        let path = hook["path"].as_str().unwrap_or_default();
        check!(path.starts_with('/') && path.ends_with("/kelson-image"), "{point} is {path:?}");
        check_eq!(hook["args"][2], json!(command), "what {point} does");
        check_eq!(hook["args"][5], json!(dir), "where the state is");
    }
    Ok(())
}
