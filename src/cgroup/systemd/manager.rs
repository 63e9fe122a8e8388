//! [parent] The service manager: jobs that start and stop units, and properties (org.freedesktop.systemd1(5)).

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::properties::{self, Property};
use super::unit::Unit;
use crate::dbus::{BOOTED, Call, Connection, Failure, Message, Patience, Value};
use crate::error::{Error, Kind, Result};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const PROPERTY_READ_ONLY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";
const INVALID_ARGS: &str = "org.freedesktop.DBus.Error.InvalidArgs";
const UNKNOWN_PROPERTY: &str = "org.freedesktop.DBus.Error.UnknownProperty";

/// How long a job may take, as in runc.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call may take that waits for nothing; systemd answers none while it reloads its configuration.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long may be asked what a job hangs in.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to undo what was begun, where somebody waits for the end of this process, or systemd was silent before;
/// `delete --force` waits longer.
const UNDO_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Manager {
    bus: Connection,
    is_user: bool,
    /// The unit whose jobs are listened for.
    watched: Option<String>,
    /// When all calls end.
    end: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobKind {
    Start,
    Stop,
}

/// A change of a unit that systemd has queued.
#[derive(Debug)]
pub struct Job {
    /// `None` if it is over: the unit tells how it ended.
    path: Option<String>,
    unit: String,
    kind: JobKind,
    deadline: Instant,
}

impl Manager {
    /// That of the system, or of the user's session. What waits for it ends with EINTR when `interrupt` can be read.
    pub fn connect(is_user: bool, interrupt: Option<BorrowedFd<'_>>) -> Result<Self> {
        let patience = Patience { deadline: Instant::now() + CALL_TIMEOUT, interrupt };
        Ok(Self { bus: connected(is_user, patience)?, is_user, watched: None, end: None })
    }

    /// What follows undoes what was begun, and is not interrupted. It is done soon, or not at all, if this process is to end
    /// or `is_silent`: systemd left calls without an answer.
    pub fn begin_undo(&mut self, is_silent: bool) {
        if is_silent || self.bus.is_interrupted() {
            self.end = Some(Instant::now() + UNDO_TIMEOUT);
        }
        self.bus.forget_interrupt();
    }

    fn deadline(&self, timeout: Duration) -> Instant {
        let deadline = Instant::now() + timeout;
        self.end.map_or(deadline, |end| end.min(deadline))
    }

    fn call(&mut self, member: &str, args: Vec<Value>) -> Result<Vec<Value>, Failure> {
        self.ask(&Call { destination: SERVICE, path: PATH, interface: MANAGER, member, args }, CALL_TIMEOUT)
    }

    /// Calls what may be called twice: a second time, if systemd left before it answered.
    fn ask(&mut self, call: &Call<'_>, timeout: Duration) -> Result<Vec<Value>, Failure> {
        let deadline = self.deadline(timeout);
        match self.bus.call(call, deadline) {
            Err(failure) if has_left(&failure) => {
                self.reach_again(failure, deadline)?;
                self.bus.call(call, deadline)
            }
            other => other,
        }
    }

    /// Waits until systemd is there again after `lost`, as it is when it has executed itself anew.
    fn reach_again(&mut self, lost: Failure, deadline: Instant) -> Result<(), Failure> {
        if let Failure::Failed(_) = &lost {
            let interrupt = self.bus.interrupt();
            match connected(self.is_user, Patience { deadline, interrupt }) {
                Ok(bus) => self.bus = bus,
                // Why the first connection ended says more.
                Err(_) => return Err(lost),
            }
        }
        log::debug!("{}", Error::from(lost));
        self.bus.wait_for_service(SERVICE, deadline)?;
        match self.watched.take() {
            Some(unit) => Ok(self.watch_jobs(&unit)?),
            None => Ok(()),
        }
    }

    fn get(&mut self, path: &str, interface: &str, name: &str, timeout: Duration) -> Result<Value, Failure> {
        let args = vec![interface.into(), name.into()];
        let values =
            self.ask(&Call { destination: SERVICE, path, interface: PROPERTIES, member: "Get", args }, timeout)?;
        let value = values.into_iter().next().ok_or_else(|| Error::other(format!("systemd gave no {name}")))?;
        Ok(value.into_inner())
    }

    fn property(&mut self, path: &str, interface: &str, name: &str, timeout: Duration) -> Result<String> {
        match self.get(path, interface, name, timeout)? {
            Value::Str(text) => Ok(text),
            _ => Err(Error::other(format!("systemd gave no text as {name}"))),
        }
    }

    /// The manager's own cgroup, below which those of its units are.
    pub fn control_group(&mut self) -> Result<PathBuf> {
        let path = self.property(PATH, MANAGER, "ControlGroup", CALL_TIMEOUT)?;
        // That of the system is the empty text.
        Ok(if path.is_empty() { "/".into() } else { path.into() })
    }

    /// Begins to start `unit`, a transient one; [`Manager::wait`] tells when it is there.
    ///
    /// # Errors
    /// [`Failure::Refused`] if the unit exists, and did not fail, or systemd refuses a property; otherwise it may come to be.
    pub fn start(&mut self, unit: &Unit, mut properties: Vec<Property>) -> Result<Job, Failure> {
        self.watch_jobs(&unit.name)?;
        let (mut is_reset, mut is_lost) = (false, false);
        loop {
            let list = properties.iter().map(|property| Value::property(&property.name, property.value.clone()));
            let args = vec![
                unit.name.as_str().into(),
                "replace".into(),
                Value::array("(sv)", list),
                // Further units that it would need.
                Value::array("(sa(sv))", []),
            ];
            let call =
                Call { destination: SERVICE, path: PATH, interface: MANAGER, member: "StartTransientUnit", args };
            let deadline = self.deadline(CALL_TIMEOUT);
            let failure = match self.bus.call(&call, deadline) {
                Ok(values) => return Ok(Self::job(&values, &unit.name, JobKind::Start)?),
                Err(failure) => failure,
            };
            if has_left(&failure) && !is_lost {
                self.reach_again(failure, deadline)?;
                is_lost = true;
                continue;
            }
            if failure.is(UNIT_EXISTS) {
                // Made by the call whose answer was lost.
                if is_lost && self.description(&unit.name)?.is_some_and(|found| found == unit.description()) {
                    return Ok(self.job_of(&unit.name, JobKind::Start)?);
                }
                if !is_reset {
                    // What is left of one that failed goes when that is forgotten.
                    self.reset_failed(&unit.name);
                    is_reset = true;
                    continue;
                }
                let cause = format!("unit {} exists already", unit.name);
                let error = Error::config("linux.cgroupsPath", cause);
                let error = error.hint("another id or another name; systemctl status tells whose it is");
                return Err(Failure::Refused { name: UNIT_EXISTS.into(), error });
            }
            let Some(index) = dispensable(&failure, &properties) else { return Err(failure) };
            let property = properties.remove(index);
            log::debug!("systemd does not take {}, the cgroup's file has its value", property.name);
        }
    }

    /// Begins to stop `unit`; `None` if there is none.
    pub fn stop(&mut self, unit: &str) -> Result<Option<Job>> {
        self.watch_jobs(unit)?;
        match self.call("StopUnit", vec![unit.into(), "replace".into()]) {
            Ok(values) => Self::job(&values, unit, JobKind::Stop).map(Some),
            Err(failure) if failure.is(NO_SUCH_UNIT) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The description of `unit`; `None` if there is none.
    pub fn description(&mut self, unit: &str) -> Result<Option<String>> {
        let Some(path) = self.object(unit)? else { return Ok(None) };
        self.property(&path, UNIT, "Description", CALL_TIMEOUT).map(Some)
    }

    /// The object that stands for `unit`; `None` if there is none.
    fn object(&mut self, unit: &str) -> Result<Option<String>> {
        let values = match self.call("GetUnit", vec![unit.into()]) {
            Err(failure) if failure.is(NO_SUCH_UNIT) => return Ok(None),
            other => other?,
        };
        let path = values.first().and_then(Value::as_str).ok_or_else(|| Error::other("systemd named no unit"))?;
        Ok(Some(path.into()))
    }

    /// The job that `unit` has.
    fn job_of(&mut self, unit: &str, kind: JobKind) -> Result<Job> {
        let deadline = self.deadline(JOB_TIMEOUT);
        let job = match self.object(unit)? {
            Some(object) => Some(self.get(&object, UNIT, "Job", CALL_TIMEOUT)?),
            None => None,
        };
        // Number and object; 0 if it has none.
        let path = match job {
            Some(Value::Struct(fields)) if fields.first() != Some(&Value::U32(0)) => {
                fields.get(1).and_then(Value::as_str).map(String::from)
            }
            _ => None,
        };
        Ok(Job { path, unit: unit.into(), kind, deadline })
    }

    /// Sends SIGKILL to all processes of `unit`.
    pub fn kill(&mut self, unit: &str) -> Result<()> {
        match self.call("KillUnit", vec![unit.into(), "all".into(), Value::I32(libc::SIGKILL)]) {
            Err(failure) if failure.is(NO_SUCH_UNIT) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Forgets that `unit` failed, so that nothing is left of it.
    pub fn reset_failed(&mut self, unit: &str) {
        if let Err(failure) = self.call("ResetFailedUnit", vec![unit.into()])
            && !failure.is(NO_SUCH_UNIT)
        {
            log::debug!("{}", Error::from(failure));
        }
    }

    /// Moves a process into the cgroup of `unit`, or the one called `below` in it, with the manager's privilege (since systemd 238).
    pub fn attach(&mut self, unit: &str, below: &str, pid: Pid) -> Result<()> {
        let pids = Value::array("u", [Value::U32(pid.as_raw().unsigned_abs())]);
        self.call("AttachProcessesToUnit", vec![unit.into(), below.into(), pids])?;
        Ok(())
    }

    /// What `properties` of `unit` are now, for [`Manager::set_properties`]; those that systemd is too old for are left out.
    pub fn present(&mut self, unit: &Unit, properties: &[Property]) -> Result<Vec<Property>> {
        let object = self.object(&unit.name)?.ok_or_else(|| Error::other(format!("unit {} is gone", unit.name)))?;
        let interface = format!("{SERVICE}.{}", if unit.is_slice() { "Slice" } else { "Scope" });
        let mut present: Vec<Property> = vec![];
        for Property { name, .. } in properties {
            if present.iter().any(|property| property.name == *name) {
                continue;
            }
            match self.get(&object, &interface, name, CALL_TIMEOUT) {
                Err(failure) if failure.is(UNKNOWN_PROPERTY) => {}
                value => present.extend(properties::set_back(name, value?)),
            }
        }
        Ok(present)
    }

    /// Changes properties of `unit` until it ends: all of them or, where systemd refuses one, none.
    pub fn set_properties(&mut self, unit: &str, mut properties: Vec<Property>) -> Result<(), Failure> {
        while !properties.is_empty() {
            let list = properties.iter().map(|property| Value::property(&property.name, property.value.clone()));
            let args = vec![unit.into(), Value::Bool(true), Value::array("(sv)", list)];
            let Err(failure) = self.call("SetUnitProperties", args) else { break };
            let Some(index) = dispensable(&failure, &properties) else { return Err(failure) };
            properties.remove(index);
        }
        Ok(())
    }

    /// Before the job is made: its end may come at once.
    fn watch_jobs(&mut self, unit: &str) -> Result<()> {
        let rule = format!(
            "type='signal',sender='{SERVICE}',path='{PATH}',interface='{MANAGER}',member='JobRemoved',arg2='{unit}'"
        );
        self.bus.add_match(&rule, self.deadline(CALL_TIMEOUT))?;
        self.watched = Some(unit.into());
        Ok(())
    }

    fn job(values: &[Value], unit: &str, kind: JobKind) -> Result<Job> {
        let path = values.first().and_then(Value::as_str).ok_or_else(|| Error::other("systemd named no job"))?;
        Ok(Job { path: Some(path.into()), unit: unit.into(), kind, deadline: Instant::now() + JOB_TIMEOUT })
    }

    /// Waits for the end of `job`, which starts or stops a unit.
    ///
    /// # Errors
    /// How it ended, if not well; what it hangs in, after [`JOB_TIMEOUT`]; EINTR.
    pub fn wait(&mut self, job: &Job) -> Result<()> {
        let deadline = self.end.map_or(job.deadline, |end| end.min(job.deadline));
        let Some(path) = &job.path else { return self.check_ended(job) };
        match self.bus.wait_for_signal(deadline, |signal| result_of(signal, path)) {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => Err(Error::other(format!("systemd's job for unit {} ended with {result:?}", job.unit))
                .hint(format!("journalctl -u {} may tell why", job.unit))),
            Err(error) if error.errno() == Some(Errno::ETIMEDOUT) => Err(self.hangs(path, job)),
            Err(error) if error.errno() == Some(Errno::ECONNRESET) => {
                self.reach_again(error.into(), deadline)?;
                // It goes on where systemd executed itself anew.
                let now = self.job_of(&job.unit, job.kind)?;
                self.wait(&Job { deadline: job.deadline, ..now })
            }
            Err(error) => Err(error),
        }
    }

    /// An error if the unit is not what `job`, which is over, should have made of it.
    fn check_ended(&mut self, Job { unit, kind, .. }: &Job) -> Result<()> {
        let state = match self.object(unit)? {
            Some(object) => self.property(&object, UNIT, "ActiveState", CALL_TIMEOUT)?,
            None => "inactive".into(),
        };
        if (state == "active") == (*kind == JobKind::Start) {
            return Ok(());
        }
        Err(Error::other(format!("unit {unit} is {state}")).hint(format!("journalctl -u {unit} may tell why")))
    }

    fn hangs(&mut self, path: &str, Job { unit, deadline, .. }: &Job) -> Error {
        let waited = (Instant::now() + JOB_TIMEOUT).saturating_duration_since(*deadline);
        let of_job = format!("{SERVICE}.Job");
        let mut ask = |name| self.property(path, &of_job, name, ASK_TIMEOUT).unwrap_or("unknown".into());
        let (kind, state) = (ask("JobType"), ask("State"));
        let number = path.rsplit('/').next().unwrap_or_default();
        let cause = format!(
            "job {number} of systemd ({kind} {unit}) is not done after {} s; its state is {state}",
            waited.as_secs()
        );
        Error::new(Kind::Other, cause).hint("systemctl list-jobs shows what it waits for")
    }
}

/// Whether systemd left the bus before it answered: it comes back, as it does when it executes itself anew.
fn has_left(failure: &Failure) -> bool {
    // On a bus where it never was it is not waited for.
    failure.is_lost() || failure.is_absent() && Path::new(BOOTED).exists()
}

fn connected(is_user: bool, patience: Patience<'_>) -> Result<Connection> {
    if is_user { Connection::user(patience) } else { Connection::system(patience) }
}

/// How the job at `path` ended, if that is what `signal` tells.
fn result_of(signal: &Message, path: &str) -> Option<String> {
    let [_, job, _, result] = signal.body.as_slice() else { return None };
    let is_it = signal.member == "JobRemoved" && job.as_str() == Some(path);
    result.as_str().filter(|_| is_it).map(String::from)
}

/// Which of `properties` systemd refuses and can be left out: one that it does not know, because it is older, and whose value is
/// in the cgroup's files.
fn dispensable(failure: &Failure, properties: &[Property]) -> Option<usize> {
    let Failure::Refused { error, .. } = failure else { return None };
    let said = error.to_string();
    let words: Vec<&str> = said.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let is_named = |name: &str| words.contains(&name);
    let is_idle = |property: &Property| property.name == "CPUWeight" && property.value == Value::U64(0);
    properties.iter().position(|property| {
        let is_unknown = failure.is(PROPERTY_READ_ONLY) && is_named(&property.name);
        // Before 252 the weight was a number from 1 on.
        let is_too_new = failure.is(INVALID_ARGS) && is_idle(property);
        property.is_in_files && (is_unknown || is_too_new)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, text: &str) -> Failure {
        Failure::Refused { name: name.into(), error: Error::other(text.to_owned()) }
    }

    #[test]
    fn only_what_the_files_say_too_is_left_out() {
        let in_files = |name: &str, value| Property { is_in_files: true, ..Property::new(name, value) };
        let properties = [
            Property::new("Description", "x".into()),
            Property::new("CollectMode", "x".into()),
            in_files("MemoryMax", Value::U64(1)),
            in_files("MemoryZSwapMax", Value::U64(1)),
            in_files("CPUWeight", Value::U64(0)),
        ];
        let unknown = |name: &str| format!("Cannot set property {name}, or unknown property.");
        for (error, text, expected) in [
            (PROPERTY_READ_ONLY, unknown("MemoryZSwapMax"), Some(3)),
            (PROPERTY_READ_ONLY, unknown("MemoryMax"), Some(2)),
            (PROPERTY_READ_ONLY, unknown("CollectMode"), None),
            (PROPERTY_READ_ONLY, unknown("Memory"), None),
            (INVALID_ARGS, "Value specified in CPUWeight is out of range".into(), Some(4)),
            (UNIT_EXISTS, "Unit MemoryMax exists".into(), None),
        ] {
            assert_eq!(dispensable(&refused(error, &text), &properties), expected, "{text}");
        }
        assert_eq!(dispensable(&Failure::Failed(Errno::ETIMEDOUT.into()), &properties), None);
    }

    #[test]
    fn a_job_is_told_by_its_path() {
        let body = |path: &str| vec![Value::U32(7), Value::Path(path.into()), "a.scope".into(), "done".into()];
        let signal = |member: &str, body| Message { member: member.into(), body, ..Message::default() };
        for (message, expected) in [
            (signal("JobRemoved", body("/j/7")), Some("done".to_owned())),
            (signal("JobRemoved", body("/j/8")), None),
            (signal("JobNew", body("/j/7")), None),
            (signal("JobRemoved", vec![]), None),
        ] {
            assert_eq!(result_of(&message, "/j/7"), expected);
        }
    }
}
