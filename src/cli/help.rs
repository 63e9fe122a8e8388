//! What `help` prints, from the same table that the parser reads.

use std::fmt::Write;

use super::{COMMANDS, Entry, GLOBAL, HELP, Opt, Takes};

pub fn usage_line(entry: &Entry) -> String {
    let options = if entry.options.is_empty() { "" } else { " [options]" };
    let gap = if entry.operands.usage.is_empty() { "" } else { " " };
    format!("kelson {}{options}{gap}{}", entry.name, entry.operands.usage)
}

pub fn overview() -> String {
    let mut text = String::from(
        "kelson runs containers from OCI bundles: directories with a config.json and a root filesystem.\n\n\
         Usage: kelson [global options] COMMAND [options] [ID]\n\nCommands:\n",
    );
    let rows = COMMANDS.iter().map(|entry| (entry.name.into(), entry.summary)).collect();
    columns(&mut text, rows);
    text.push_str("  help COMMAND tells the options of one of them\n\nGlobal options:\n");
    columns(&mut text, GLOBAL.iter().map(|opt| (spelling(opt), opt.help)).collect());
    text
}

pub fn command_help(entry: &Entry) -> String {
    let mut text = format!("kelson {}: {}\n\nUsage: {}\n", entry.name, entry.summary, usage_line(entry));
    if !entry.about.is_empty() {
        text.push('\n');
        text.push_str(entry.about);
        text.push('\n');
    }
    text.push_str("\nOptions:\n");
    let options = entry.options.iter().copied().filter(|opt| !opt.help.is_empty()).chain([&HELP]);
    columns(&mut text, options.map(|opt| (spelling(opt), opt.help)).collect());
    if !entry.with_image.is_empty() {
        text.push_str("\nOptions for an image:\n");
        columns(&mut text, entry.with_image.iter().map(|opt| (spelling(opt), opt.help)).collect());
    }
    text
}

/// `-b, --bundle DIR`
pub fn spelling(opt: &Opt) -> String {
    let mut text = match opt.short {
        Some(short) => format!("-{short}, --{}", opt.long),
        None => format!("    --{}", opt.long),
    };
    if let Takes::Value(what) = opt.takes {
        text.push(' ');
        text.push_str(what);
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
