//! The store as a user sees it: `kelson-image` with archives and layouts, made here and by other programs.

mod support;

mod damage;
mod exports;
mod forms;
mod names;
mod owners;
mod pulls;
mod together;
