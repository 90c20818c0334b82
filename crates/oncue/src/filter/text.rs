//! A filter as a person reads it: `type = "a" and not subject prefix "b"`.

use std::fmt::{self, Formatter};

use super::{Expression, Filter, Test, attribute::Attribute};

/// How tightly an operator binds, the loosest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Or,
    And,
    Not,
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_expression(&self.0, Binding::Or, f)
    }
}

/// Writes `expression`, in brackets if what stands around it binds more tightly.
fn write_expression(expression: &Expression, around: Binding, f: &mut Formatter<'_>) -> fmt::Result {
    match expression {
        Expression::Attributes(test, pairs) => {
            joined(pairs, Binding::And, around, f, |pair, _, f| write_pair(*test, pair, f))
        }
        Expression::All(parts) => joined(parts, Binding::And, around, f, write_expression),
        Expression::Any(parts) => joined(parts, Binding::Or, around, f, write_expression),
        Expression::Not(part) => {
            f.write_str("not ")?;
            write_expression(part, Binding::Not, f)
        }
        Expression::Refused(refused) => write!(f, "refused ({refused})"),
    }
}

fn write_pair(test: Test, (attribute, value): &(Attribute, Box<str>), f: &mut Formatter<'_>) -> fmt::Result {
    let operator = if test == Test::Exact { "=" } else { test.dialect() };
    write!(f, "{} {operator} {value:?}", attribute.name())
}

fn joined<P>(
    parts: &[P],
    operator: Binding,
    around: Binding,
    f: &mut Formatter<'_>,
    write: impl Fn(&P, Binding, &mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    if let [only] = parts {
        return write(only, around, f);
    }
    let brackets = operator < around || parts.is_empty();
    if brackets {
        f.write_str("(")?;
    }
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(if operator == Binding::And { " and " } else { " or " })?;
        }
        write(part, operator, f)?;
    }
    if brackets { f.write_str(")") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_stand_where_they_are_needed() {
        let a = || Filter::exact("type", "a");
        let b = || Filter::prefix("subject", "b\"");
        let c = || Filter::suffix("tenant", "c");
        for (filter, expected) in [
            (a().and(!b()), r#"type = "a" and not subject prefix "b\"""#),
            (a().or(b()).and(c()), r#"(type = "a" or subject prefix "b\"") and tenant suffix "c""#),
            (a().or(b().and(c())), r#"type = "a" or subject prefix "b\"" and tenant suffix "c""#),
            (!a().and(c()), r#"not (type = "a" and tenant suffix "c")"#),
            (!Filter::any([a()]), r#"not type = "a""#),
            (Filter::all([Filter::any([a(), c()])]), r#"type = "a" or tenant suffix "c""#),
            (Filter::any([]), "()"),
        ] {
            assert_eq!(filter.to_string(), expected);
        }
        let two: Filter = serde_json::from_str(r#"{"not":{"exact":{"type":"a","subject":"b"}}}"#).unwrap();
        assert_eq!(two.to_string(), r#"not (subject = "b" and type = "a")"#);
    }
}
