//! Which known names are like one that is not known.

/// Names beyond so many bytes are not compared.
const MAX_COMPARED: usize = 200;

/// A few names like `wanted`, the most similar first: those that contain it, and those whose last
/// path segment is a few letters away from its own.
pub(crate) fn to<'a>(
    wanted: &str,
    known: impl Iterator<Item = &'a str>,
    count: usize,
) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let segment = last_segment(&wanted);
    if segment.is_empty() || segment.len() > MAX_COMPARED {
        return Vec::new();
    }
    let mut scored: Vec<(usize, usize, &str)> = known
        .filter_map(|name| score(segment, name).map(|score| (score, name.len(), name)))
        .collect();
    scored.sort_unstable();
    scored.dedup();
    scored
        .into_iter()
        .take(count)
        .map(|(_, _, name)| name.to_owned())
        .collect()
}

/// How far a name is from the wanted segment; `None` for one that is not like it.
fn score(segment: &str, name: &str) -> Option<usize> {
    if name.len() > 2 * MAX_COMPARED {
        return None;
    }
    let name = name.to_lowercase();
    let last = last_segment(&name);
    let limit = segment.len() / 3;
    let distance = distance(segment, last, limit);
    if let Some(distance) = distance {
        return Some(distance);
    }
    (segment.len() > 2 && name.contains(segment)).then_some(limit + 1)
}

fn last_segment(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// How many letters have to change (Levenshtein), where they are no more than `limit`.
fn distance(left: &str, right: &str, limit: usize) -> Option<usize> {
    if left.len().abs_diff(right.len()) > limit || right.len() > MAX_COMPARED {
        return None;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_most_similar_comes_first() {
        let known = [
            "app::counter",
            "app::COUNT",
            "app::account",
            "main",
            "app::counters_all",
        ];
        let to = |wanted| super::to(wanted, known.into_iter(), 3);
        assert_eq!(to("conter"), ["app::counter"]);
        assert_eq!(
            to("other::COUNTER"),
            ["app::counter", "app::COUNT", "app::counters_all"]
        );
        assert_eq!(to("zzzz"), [""; 0]);
        assert_eq!(to(""), [""; 0]);
    }
}
