//! A path as it is written, made one of RFC 9535: kubectl's form has braces around it, and its names may hold every
//! character, a dot behind a backslash: `{.metadata.labels.app\.kubernetes\.io/name}`. Positions lead back to what
//! was written.

use serde_json_path::JsonPath;

/// A path of RFC 9535, and where each byte of it came from.
#[derive(Debug)]
pub(super) struct Standard {
    text: String,
    origins: Vec<usize>,
}

/// A byte's offset in what was written, and what is wrong there.
type Wrong = (usize, String);

/// Reads what was written.
///
/// # Errors
/// [`Wrong`], when braces or brackets do not fit, or a step is none.
pub(super) fn to_standard(path: &str) -> Result<Standard, Wrong> {
    let Some(rest) = path.strip_prefix('{') else {
        return Ok(Standard { text: path.into(), origins: (0..path.len()).collect() });
    };
    let Some(inner) = rest.strip_suffix('}') else {
        return Err((path.len(), "a path that begins with { ends with }, and nothing stands behind it".into()));
    };
    let mut standard = Standard { text: String::new(), origins: Vec::new() };
    standard.push("$", 1);
    let mut at = usize::from(inner.starts_with('$'));
    if at == inner.len() {
        return Err((1 + at, "the braces hold no path".into()));
    }
    while at < inner.len() {
        at = step(inner, at, &mut standard).map_err(|(offset, reason)| (offset + 1, reason))?;
    }
    Ok(standard)
}

/// Takes one step of the path at a byte; answers where the next one begins.
fn step(inner: &str, at: usize, standard: &mut Standard) -> Result<usize, Wrong> {
    let origin = at + 1;
    let rest = &inner[at..];
    if rest.starts_with('[') {
        let end = bracket(rest).ok_or_else(|| (at, "this bracket is not closed".to_owned()))?;
        for (offset, letter) in rest[..end].char_indices() {
            standard.push(letter.encode_utf8(&mut [0; 4]), origin + offset);
        }
        return Ok(at + end);
    }
    let dots = if rest.starts_with("..") { 2 } else { usize::from(rest.starts_with('.')) };
    if dots == 0 {
        return Err((at, "a step begins with . or [".into()));
    }
    if dots == 2 {
        standard.push("..", origin);
    }
    let name = &rest[dots..];
    if dots == 2 && name.starts_with('[') {
        return Ok(at + dots);
    }
    let (name, length) = unescape(name);
    match name.as_str() {
        "" => return Err((at + dots, "a name is missing behind the dot".into())),
        "*" => standard.push("[*]", origin + dots),
        name => {
            let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
            standard.push(&format!("['{quoted}']"), origin + dots);
        }
    }
    Ok(at + dots + length)
}

/// The name at the front without its backslashes, and how many bytes it takes with them.
fn unescape(text: &str) -> (String, usize) {
    let mut name = String::new();
    let mut escaped = false;
    for (offset, letter) in text.char_indices() {
        match letter {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '.' | '[' if !escaped => return (name, offset),
            letter => name.push(letter),
        }
        escaped = false;
    }
    (name, text.len())
}

/// The byte behind the bracket that closes the first one; quoted ones do not count.
fn bracket(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    let mut quote = None;
    let mut escaped = false;
    for (offset, letter) in text.char_indices() {
        match (quote, letter) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}

impl Standard {
    fn push(&mut self, text: &str, origin: usize) {
        self.text.push_str(text);
        self.origins.extend(std::iter::repeat_n(origin, text.len()));
    }

    /// The path, or what is wrong with it; `written` is what the user gave.
    ///
    /// # Errors
    /// [`Wrong`].
    pub(super) fn parse(&self, written: &str) -> Result<JsonPath, Wrong> {
        JsonPath::parse(&self.text).map_err(|error| {
            let offset = self.origins.get(error.position()).copied().unwrap_or(written.len());
            (offset, reason(&written[offset..], offset, error.message()))
        })
    }
}

/// The parser knows where it stopped, and mostly not why.
fn reason(rest: &str, offset: usize, message: &str) -> String {
    let Some(letter) = rest.chars().next() else { return "the path breaks off".into() };
    if offset == 0 && letter != '$' {
        return "a path begins with $ (RFC 9535) or { (kubectl)".into();
    }
    if letter == '[' {
        return "what stands in these brackets selects nothing: write ['NAME'], [0], [*] or a filter".into();
    }
    if message.ends_with("parser error") {
        return format!(
            "`{letter}` may not stand here; a name with other characters than letters, digits and _ stands in \
             brackets: $.metadata.labels['app.kubernetes.io/name']"
        );
    }
    format!("`{letter}` may not stand here: {message}")
}
