//! The registry client against registries on loopback: one that fails as it is told to, and docker's own.

mod faults;
mod faulty;
mod logins;
mod real;
mod scratch;
