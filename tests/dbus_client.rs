//! The D-Bus client against Debian's dbus-daemon, and services on it that keep silent, lie, or are gone.

use std::thread;
use std::time::{Duration, Instant};

use kelson::dbus::{Call, Connection, Failure, Message, Value};
use kelson::error::Error;
use nix::errno::Errno;

#[path = "dbus/daemon.rs"]
mod daemon;

use daemon::{Daemon, Service, soon};

const NAME: &str = "org.example.Service";

fn of_bus(member: &str, args: Vec<Value>) -> Call<'_> {
    let bus = "org.freedesktop.DBus";
    Call { destination: bus, path: "/org/freedesktop/DBus", interface: bus, member, args }
}

fn of_service(member: &str, args: Vec<Value>) -> Call<'_> {
    Call { destination: NAME, path: "/org/example", interface: NAME, member, args }
}

fn text(failure: Failure) -> String {
    Error::from(failure).to_string()
}

#[test]
fn the_bus_tells_its_names() {
    let daemon = Daemon::start();
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    let names = connection.call(&of_bus("ListNames", vec![]), soon()).unwrap();
    assert!(names[0].items().contains(&"org.freedesktop.DBus".into()), "{names:?}");
}

#[test]
fn an_error_is_known_by_its_name() {
    let daemon = Daemon::start();
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    let failure = connection.call(&of_bus("GetNameOwner", vec![NAME.into()]), soon()).unwrap_err();
    assert!(failure.is("org.freedesktop.DBus.Error.NameHasNoOwner"), "{failure:?}");
    assert!(!failure.is("org.freedesktop.DBus.Error.ServiceUnknown"));
    let expected = "call GetNameOwner of org.freedesktop.DBus: Could not get owner of name 'org.example.Service': \
         no such name (org.freedesktop.DBus.Error.NameHasNoOwner)";
    assert_eq!(text(failure), expected);
}

#[test]
fn a_service_that_is_not_there_is_known_by_its_name() {
    let daemon = Daemon::start();
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    let failure = connection.call(&of_service("Do", vec![]), soon()).unwrap_err();
    assert!(failure.is("org.freedesktop.DBus.Error.ServiceUnknown"), "{failure:?}");
    assert!(text(failure).contains("(org.example.Service is not on this bus: DBUS_SESSION_BUS_ADDRESS may name"));
}

#[test]
fn a_call_without_an_answer_ends_at_its_deadline_and_the_next_one_works() {
    let daemon = Daemon::start();
    let mut service = Service::with_name(&daemon, NAME);
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(200);
    let failure = connection.call(&of_service("Hang", vec![]), deadline).unwrap_err();
    assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < Duration::from_secs(10));
    let error = Error::from(failure);
    assert_eq!(error.errno(), Some(Errno::ETIMEDOUT));
    assert_eq!(error.to_string(), "call Hang of org.example.Service: no answer in 0.2 s");
    // The answer that comes too late is not taken for that of the next call.
    let call = service.receive_call("Hang");
    service.answer(&call, vec!["late".into()]);
    let next = thread::spawn(move || {
        let call = service.receive_call("Next");
        service.answer(&call, vec!["next".into()]);
    });
    assert_eq!(connection.call(&of_service("Next", vec![]), soon()).unwrap(), ["next".into()]);
    next.join().unwrap();
}

#[test]
fn messages_larger_than_any_buffer_pass_both_ways() {
    let daemon = Daemon::start();
    let mut service = Service::with_name(&daemon, NAME);
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    let echo = thread::spawn(move || {
        let call = service.receive_call("Echo");
        let body = call.body.clone();
        service.answer(&call, body);
    });
    let bytes: Vec<u8> = (0..12u32 << 20).map(|number| (number % 251) as u8).collect();
    let sent = [Value::Bytes(bytes), Value::Str("x".repeat(1 << 20))];
    let answer = connection.call(&of_service("Echo", sent.to_vec()), soon()).unwrap();
    assert!(answer == sent);
    echo.join().unwrap();
}

#[test]
fn a_bus_that_dies_ends_the_call() {
    let mut daemon = Daemon::start();
    let mut service = Service::with_name(&daemon, NAME);
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    let killer = thread::spawn(move || {
        service.receive_call("Hang");
        daemon.kill();
    });
    let failure = connection.call(&of_service("Hang", vec![]), soon()).unwrap_err();
    assert_eq!(text(failure), "call Hang of org.example.Service: the other side closed the connection");
    killer.join().unwrap();
    let failure = connection.call(&of_service("Hang", vec![]), soon()).unwrap_err();
    assert_eq!(text(failure), "call Hang of org.example.Service: the other side closed the connection");
}

#[test]
fn a_service_that_dies_ends_the_call() {
    let daemon = Daemon::start();
    let mut service = Service::with_name(&daemon, NAME);
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    let dying = thread::spawn(move || drop(service.receive_call("Hang")));
    let failure = connection.call(&of_service("Hang", vec![]), soon()).unwrap_err();
    assert!(failure.is("org.freedesktop.DBus.Error.NoReply"), "{failure:?}");
    dying.join().unwrap();
}

fn number(message: &Message) -> Option<u32> {
    if message.member == "Done" { message.body.first()?.as_u32() } else { None }
}

/// A connection that asked for the service's signals and has called it once.
fn listening(daemon: &Daemon, mut service: Service) -> (Connection, Service, String) {
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    connection.add_match("type='signal',interface='org.example.Service',member='Done'", soon()).unwrap();
    let serving = thread::spawn(move || {
        let call = service.receive_call("Do");
        // Before the answer: it comes while the call waits.
        service.signal("", "Done", vec![Value::U32(1)]);
        service.answer(&call, vec![]);
        (service, call.sender)
    });
    connection.call(&of_service("Do", vec![]), soon()).unwrap();
    let (service, caller) = serving.join().unwrap();
    (connection, service, caller)
}

#[test]
fn signals_are_heard_in_order_also_those_that_came_during_a_call() {
    let daemon = Daemon::start();
    let (mut connection, mut service, _) = listening(&daemon, Service::with_name(&daemon, NAME));
    service.signal("", "Other", vec![]);
    service.signal("", "Done", vec![Value::U32(2)]);
    service.signal("", "Done", vec![Value::U32(3)]);
    assert_eq!(connection.wait_for_signal(soon(), number).unwrap(), 1);
    assert_eq!(connection.wait_for_signal(soon(), |message| number(message).filter(|number| *number != 2)).unwrap(), 3);
    let deadline = Instant::now() + Duration::from_millis(50);
    assert_eq!(connection.wait_for_signal(deadline, number).unwrap_err().errno(), Some(Errno::ETIMEDOUT));
}

#[test]
fn a_signal_of_somebody_else_is_not_heard() {
    let daemon = Daemon::start();
    let (mut connection, mut service, caller) = listening(&daemon, Service::with_name(&daemon, NAME));
    assert_eq!(connection.wait_for_signal(soon(), number).unwrap(), 1);
    let mut impostor = Service::without_name(&daemon);
    impostor.signal(&caller, "Done", vec![Value::U32(66)]);
    impostor.signal("", "Done", vec![Value::U32(67)]);
    // It has its answer after both signals are on their way.
    impostor.call_bus("GetId", vec![]);
    service.signal("", "Done", vec![Value::U32(2)]);
    assert_eq!(connection.wait_for_signal(soon(), number).unwrap(), 2);
}

#[test]
fn a_service_that_came_back_as_another_connection_is_heard() {
    let daemon = Daemon::start();
    let (mut connection, service, _) = listening(&daemon, Service::with_name(&daemon, NAME));
    drop(service);
    let mut again = Service::without_name(&daemon);
    // Until the bus has seen the end of the one before, it is queued for the name (2), and the bus says when it has it.
    let taken = again.call_bus("RequestName", vec![NAME.into(), Value::U32(0)]);
    while taken.body != [Value::U32(1)] && again.receive().member != "NameAcquired" {}
    again.signal("", "Done", vec![Value::U32(2)]);
    assert_eq!(connection.wait_for_signal(soon(), number).unwrap(), 1);
    assert_eq!(connection.wait_for_signal(soon(), number).unwrap(), 2);
}

/// The user id that the bus at `address` knows this connection by.
fn known_as(address: &str) -> u32 {
    let mut connection = Connection::open(address, soon()).unwrap();
    let names = connection.call(&of_bus("ListNames", vec![]), soon()).unwrap();
    // Of a bus with nobody else.
    let own = names[0].items().iter().find(|name| name.as_str().unwrap().starts_with(':')).unwrap().clone();
    let user = connection.call(&of_bus("GetConnectionUnixUser", vec![own]), soon()).unwrap();
    user[0].as_u32().unwrap()
}

/// What a root of its own user namespace is outside, it cannot say: uid_map shows it to itself only by chance.
#[test]
fn root_of_a_user_namespace_is_who_it_is_outside() {
    if let Some(address) = std::env::var_os("KELSON_TEST_BUS") {
        assert!(nix::unistd::geteuid().is_root());
        println!("known as {}", known_as(address.to_str().unwrap()));
        return;
    }
    let daemon = Daemon::start();
    let own = nix::unistd::geteuid();
    // Debian's `daemon`: the bus takes no user whom the host does not know.
    let other = if own.is_root() { 1 } else { own.as_raw() };
    // Where another user can reach it.
    let program = daemon.directory.0.join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(program).arg("--nocapture").arg("--exact");
    command.arg("root_of_a_user_namespace_is_who_it_is_outside").env("KELSON_TEST_BUS", daemon.address());
    if own.is_root() {
        use std::os::unix::process::CommandExt;
        command.uid(other).gid(other);
    }
    let output = command.current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("known as {other}\n")), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_first_bus_that_takes_the_connection_is_used() {
    let daemon = Daemon::start();
    let gone = daemon.directory.0.join("gone");
    let address = format!("tcp:host=localhost;unix:path={};{}", gone.display(), daemon.address());
    assert!(Connection::open(&address, soon()).is_ok());
    let error = Connection::open(&format!("unix:path={}", gone.display()), soon()).unwrap_err();
    assert_eq!(error.to_string(), format!("connect to {}: no such file or directory", gone.display()));
}

/// As systemd does when it executes itself anew.
#[test]
fn a_service_that_leaves_before_it_answers_is_waited_for() {
    let daemon = Daemon::start();
    let mut service = Service::with_name(&daemon, NAME);
    let leaving = thread::spawn(move || drop(service.receive_call("Do")));
    let mut connection = Connection::open(&daemon.address(), soon()).unwrap();
    let failure = connection.call(&of_service("Do", vec![]), soon()).unwrap_err();
    leaving.join().unwrap();
    assert!(failure.is_lost(), "{failure:?}");
    assert!(failure.is("org.freedesktop.DBus.Error.NoReply"), "{failure:?}");
    let shortly = Instant::now() + Duration::from_millis(50);
    let error = connection.wait_for_service(NAME, shortly).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ETIMEDOUT), "{error}");
    let (begun, begins) = std::sync::mpsc::channel();
    let waiting = thread::spawn(move || {
        begun.send(()).unwrap();
        connection.wait_for_service(NAME, soon()).map(|()| connection)
    });
    begins.recv().unwrap();
    let mut again = Service::with_name(&daemon, NAME);
    let mut connection = waiting.join().unwrap().unwrap();
    // One that is there is not waited for.
    connection.wait_for_service(NAME, soon()).unwrap();
    let answering = thread::spawn(move || {
        let call = again.receive_call("Do");
        again.answer(&call, vec![]);
    });
    assert!(connection.call(&of_service("Do", vec![]), soon()).is_ok());
    answering.join().unwrap();
}
