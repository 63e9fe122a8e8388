//! `--change`: instructions of a Dockerfile that are about the configuration alone.

use kelson::error::{Error, Result};
use serde_json::{Map, Value, json};

/// What `--change` takes.
const KNOWN: &str = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR";

/// Changes an image's configuration as the instruction says.
///
/// # Errors
/// It is none of these instructions, or not of the form that it has.
pub fn apply(config: &mut Map<String, Value>, text: &str) -> Result<()> {
    let text = text.trim();
    let (name, rest) = text.split_once(char::is_whitespace).map_or((text, ""), |(name, rest)| (name, rest.trim()));
    let own = super::list(config, "config")?;
    if rest.is_empty() {
        return Err(Error::usage("nothing follows the instruction").hint("CMD [\"sh\"], ENV KEY=VALUE"));
    }
    match name.to_ascii_uppercase().as_str() {
        "CMD" => drop(own.insert("Cmd".into(), json!(command(rest)?))),
        "ENTRYPOINT" => {
            // As docker: the Cmd of the image belonged to the other program.
            own.insert("Cmd".into(), Value::Null);
            own.insert("Entrypoint".into(), json!(command(rest)?));
        }
        "ENV" => pairs(rest)?.into_iter().for_each(|(key, value)| set_variable(own, &key, &value)),
        "LABEL" => {
            let labels = super::list(own, "Labels")?;
            labels.extend(pairs(rest)?.into_iter().map(|(key, value)| (key, json!(value))));
        }
        "EXPOSE" => {
            let ports = words(rest)?.iter().map(|word| port(word)).collect::<Result<Vec<_>>>()?;
            super::list(own, "ExposedPorts")?.extend(ports.into_iter().map(|port| (port, json!({}))));
        }
        "VOLUME" => {
            let paths = array(rest)?.map_or_else(|| words(rest), Ok)?;
            if let Some(path) = paths.iter().find(|path| !path.starts_with('/')) {
                return Err(Error::usage(format!("{path:?} is no absolute path")));
            }
            super::list(own, "Volumes")?.extend(paths.into_iter().map(|path| (path, json!({}))));
        }
        "USER" => drop(own.insert("User".into(), json!(rest))),
        "STOPSIGNAL" => drop(own.insert("StopSignal".into(), json!(rest))),
        "WORKDIR" => {
            // Relative to the one before, as docker has it.
            let before = own.get("WorkingDir").and_then(Value::as_str).filter(|dir| !dir.is_empty()).unwrap_or("/");
            let dir = std::path::Path::new(before).join(rest);
            own.insert("WorkingDir".into(), json!(dir));
        }
        other => return Err(Error::usage(format!("{other:?} is no instruction for a commit")).hint(KNOWN)),
    }
    Ok(())
}

/// An array of words, or a line for the shell.
fn command(text: &str) -> Result<Vec<String>> {
    Ok(array(text)?.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into(), text.into()]))
}

/// A JSON array of strings; `None` for what does not begin as one.
fn array(text: &str) -> Result<Option<Vec<String>>> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let words = serde_json::from_str(text);
    words.map(Some).map_err(|error| Error::usage(format!("{text} is no JSON array of strings: {error}")))
}

/// `KEY=VALUE …`, or `KEY VALUE` for one.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let words = words(text)?;
    let is_old = words.first().is_some_and(|word| !word.contains('='));
    if is_old && let Some((key, value)) = text.split_once(char::is_whitespace) {
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("{word:?} is not of the form KEY=VALUE"))),
    };
    words.iter().map(pair).collect()
}

fn set_variable(own: &mut Map<String, Value>, key: &str, value: &str) {
    let entry = json!(format!("{key}={value}"));
    let all = own.entry("Env").or_insert_with(|| json!([]));
    let Some(list) = all.as_array_mut() else {
        *all = json!([entry]);
        return;
    };
    let is_it = |known: &&mut Value| known.as_str().and_then(|text| text.split('=').next()) == Some(key);
    match list.iter_mut().find(is_it) {
        Some(known) => *known = entry,
        None => list.push(entry),
    }
}

/// `PORT`, `PORT/udp` or `FIRST-LAST`, with its protocol.
fn port(word: &str) -> Result<String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let number = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    let is_range = ports.split_once('-').is_some_and(|(first, last)| number(first) && number(last));
    match (number(ports) || is_range) && ["tcp", "udp", "sctp"].contains(&protocol) {
        true => Ok(format!("{ports}/{protocol}")),
        false => Err(Error::usage(format!("{word:?} is no port")).hint("8080, 53/udp or 8000-8010")),
    }
}

/// Words between spaces; quotes and a backslash keep a space in a word.
fn words(text: &str) -> Result<Vec<String>> {
    let mut all: Vec<String> = vec![];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match (character, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => match rest.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err(Error::usage("it ends with a backslash")),
            },
            (c, None) if c.is_whitespace() => all.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::usage("a quotation does not end"));
    }
    all.extend(word);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(config: Value, changes: &[&str]) -> Value {
        let mut config = config.as_object().cloned().unwrap();
        changes.iter().for_each(|text| apply(&mut config, text).unwrap());
        config["config"].clone()
    }

    #[test]
    fn instructions_change_what_they_name() {
        for (changes, expected) in [
            (&["CMD [\"a\", \"b c\"]"][..], json!({"Cmd": ["a", "b c"]})),
            (&["cmd echo $HOME"], json!({"Cmd": ["/bin/sh", "-c", "echo $HOME"]})),
            (&["ENTRYPOINT [\"a\"]"], json!({"Cmd": null, "Entrypoint": ["a"]})),
            (&["ENTRYPOINT [\"a\"]", "CMD [\"b\"]"], json!({"Cmd": ["b"], "Entrypoint": ["a"]})),
            (&["ENV A=1 B=\"2 3\" C=4\\ 5", "ENV A=6"], json!({"Env": ["A=6", "B=2 3", "C=4 5"]})),
            (&["ENV A b c"], json!({"Env": ["A=b c"]})),
            (&["LABEL a=b", "LABEL c='d e'"], json!({"Labels": {"a": "b", "c": "d e"}})),
            (&["EXPOSE 80 53/udp 1-2"], json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "1-2/tcp": {}}})),
            (&["VOLUME /a /b", "VOLUME [\"/c\"]"], json!({"Volumes": {"/a": {}, "/b": {}, "/c": {}}})),
            (&["USER 1:2", "STOPSIGNAL SIGINT"], json!({"User": "1:2", "StopSignal": "SIGINT"})),
            (&["WORKDIR /a", "WORKDIR b"], json!({"WorkingDir": "/a/b"})),
        ] {
            assert_eq!(changed(json!({}), changes), expected, "{changes:?}");
        }
        let before = json!({"config": {"Env": ["PATH=/bin"], "Labels": null, "x": 1}});
        let expected = json!({"Env": ["PATH=/sbin"], "Labels": {"a": "b"}, "x": 1});
        assert_eq!(changed(before, &["ENV PATH=/sbin", "LABEL a=b"]), expected);
    }

    #[test]
    fn what_is_no_such_instruction_is_refused() {
        for text in [
            "",
            "CMD",
            "RUN ls",
            "ONBUILD CMD x",
            "CMD [\"a\"",
            "CMD [1]",
            "ENV =1",
            "ENV A=1 B",
            "LABEL 'a=b",
            "ENV A=\\",
            "EXPOSE 0",
            "EXPOSE x",
            "EXPOSE 1/icmp",
            "EXPOSE 99999",
            "VOLUME a",
            "VOLUME [1]",
        ] {
            assert!(apply(&mut Map::new(), text).is_err(), "{text}");
        }
    }
}
