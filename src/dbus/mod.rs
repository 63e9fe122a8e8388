//! A client of D-Bus: one connection, calls that wait no longer than their deadline, and signals.
//!
//! ```text
//!   bus.rs         which bus, and what to do where there is none
//!   connection.rs  the socket: authentication, calls, signals     address.rs    where it is
//!   message.rs     header and body                                wire.rs       values to bytes and back
//!   value.rs       values                                         signature.rs  their types
//! ```
//!
//! Synchronous and without threads; why it is our own: docs/decisions/0005-own-dbus-client.md.

mod address;
mod bus;
mod connection;
mod message;
mod signature;
#[cfg(test)]
mod tests;
mod value;
mod wire;

pub use bus::BOOTED;
pub use connection::{Call, Connection, Failure, Patience};
pub use message::{Kind, Message};
pub use value::Value;
