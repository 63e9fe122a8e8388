//! What `help` prints, from the same table that the parser reads.

use std::fmt::Write;

use super::{COMMANDS, Entry, GLOBAL, HELP, Opt};

pub fn usage_line(entry: &Entry) -> String {
    let gap = if entry.operands.is_empty() { "" } else { " " };
    format!("kelson image {} [options]{gap}{}", entry.name, entry.operands)
}

pub fn overview() -> String {
    let mut text = String::from(
        "kelson image keeps the images that kelson run --image starts.\n\n\
         Usage: kelson image [options] COMMAND [options] [WORDS]\n\nCommands:\n",
    );
    let shown =
        COMMANDS.iter().filter(|entry| !["ensure", "make-volume", "diff", "commit", "flatten"].contains(&entry.name));
    columns(&mut text, shown.map(|entry| (entry.name.into(), entry.summary)).collect());
    text.push_str("  help COMMAND tells the options of one of them\n\nOptions:\n");
    columns(&mut text, GLOBAL.iter().map(|opt| (spelling(opt), opt.help)).collect());
    text
}

pub fn of(entry: &Entry) -> String {
    let mut text = format!("kelson image {}: {}\n\nUsage: {}\n", entry.name, entry.summary, usage_line(entry));
    if !entry.about.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{}\n", entry.about);
    }
    text.push_str("\nOptions:\n");
    columns(&mut text, entry.options.iter().chain([&HELP]).map(|opt| (spelling(opt), opt.help)).collect());
    text
}

pub fn version() -> String {
    kelson::cli::version().replacen("kelson version", "kelson-image version", 1)
}

fn spelling(opt: &Opt) -> String {
    let mut text = match opt.short {
        Some(short) => format!("-{short}, --{}", opt.long),
        None => format!("    --{}", opt.long),
    };
    if let Some(value) = opt.value {
        text.push(' ');
        text.push_str(value);
    }
    text
}

fn columns(text: &mut String, rows: Vec<(String, &str)>) {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    for (left, right) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {left:width$}  {right}");
    }
}
