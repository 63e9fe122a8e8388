//! What the steps of create and run are called that are the command's own: by `--timings`, which measures them, and by
//! `explain`, which tells what they would do. Those of the container's process are named in its list (`sandbox::init`).

pub const READ: &str = "read the configuration";
pub const PLAN: &str = "make the plan";
pub const RESERVE: &str = "reserve the state directory";
pub const LOCATE: &str = "find a place for the cgroups";
pub const JOURNAL: &str = "write the journal";
pub const UNIT: &str = "ask systemd for the unit";
pub const PREPARE: &str = "open namespaces and prepare mounts";
pub const CGROUPS: &str = "make the cgroups and set limits";
pub const CLONE: &str = "clone";
pub const STAGE: &str = "wait for the stage process";
pub const COMPLETE: &str = "complete the cgroups";
pub const KEEP: &str = "keep the configuration";
pub const SERVE: &str = "wait for the container's process";
pub const SAVE: &str = "save the state";
pub const EXECUTED: &str = "wait for the program to be executed";
pub const POSTSTART: &str = "run poststart hooks";
