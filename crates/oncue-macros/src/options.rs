//! `name = value, name(list), name`: what stands in an attribute, with errors that point at it.

use proc_macro2::Span;
use syn::{
    Error, Expr, ExprLit, Ident, Lit, LitStr, Result, Token, Type,
    ext::IdentExt as _,
    parenthesized,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    spanned::Spanned as _,
};

/// All options of one attribute; taken one by one, so that what is left over is unknown.
pub(crate) struct Options(Vec<Named>);

/// One option.
pub(crate) struct Named {
    pub(crate) name: Ident,
    pub(crate) value: Value,
}

/// What stands behind an option's name.
pub(crate) enum Value {
    Nothing,
    Expr(Expr),
    Types(Vec<Type>),
}

impl Parse for Named {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = Ident::parse_any(input)?;
        let value = if input.peek(syn::token::Paren) {
            let list;
            parenthesized!(list in input);
            Value::Types(Punctuated::<Type, Token![,]>::parse_terminated(&list)?.into_iter().collect())
        } else if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            if input.is_empty() || input.peek(Token![,]) {
                return Err(Error::new(name.span(), format!("`{name} =` lacks its value")));
            }
            Value::Expr(input.parse()?)
        } else {
            Value::Nothing
        };
        Ok(Self { name, value })
    }
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self(Vec::new());
        for option in Punctuated::<Named, Token![,]>::parse_terminated(input)? {
            options.add(option)?;
        }
        Ok(options)
    }
}

impl Options {
    /// Those of all `#[event(…)]` attributes together.
    pub(crate) fn of(attributes: &[syn::Attribute], name: &str) -> Result<Self> {
        let mut options = Self(Vec::new());
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
            for option in attribute.parse_args::<Self>()?.0 {
                options.add(option)?;
            }
        }
        Ok(options)
    }

    fn add(&mut self, option: Named) -> Result<()> {
        if self.0.iter().any(|known| known.name == option.name) {
            return Err(Error::new(option.name.span(), format!("`{}` is given twice", option.name)));
        }
        self.0.push(option);
        Ok(())
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Named> {
        let at = self.0.iter().position(|option| option.name == name)?;
        Some(self.0.remove(at))
    }

    /// An error for the first option that nobody took.
    pub(crate) fn finish(self, known: &[&str]) -> Result<()> {
        let Some(option) = self.0.first() else {
            return Ok(());
        };
        let name = option.name.to_string();
        let meant = known.iter().find(|known| similar(&name, known));
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the options are {}", list(known)),
        };
        Err(Error::new(option.name.span(), format!("unknown option `{name}`: {hint}")))
    }
}

impl Named {
    pub(crate) fn expr(self) -> Result<Expr> {
        match self.value {
            Value::Expr(expr) => Ok(expr),
            _ => Err(Error::new(self.name.span(), format!("`{0}` takes a value: `{0} = …`", self.name))),
        }
    }

    /// A string literal that is not empty.
    pub(crate) fn text(self) -> Result<LitStr> {
        let name = self.name.clone();
        let expr = self.expr()?;
        let text = text_of(&expr)
            .ok_or_else(|| Error::new(expr.span(), format!("`{name}` takes a string: `{name} = \"…\"`")))?;
        if text.value().is_empty() {
            return Err(Error::new(text.span(), format!("`{name}` cannot be empty")));
        }
        Ok(text)
    }

    pub(crate) fn flag(self) -> Result<Span> {
        match self.value {
            Value::Nothing => Ok(self.name.span()),
            _ => Err(Error::new(self.name.span(), format!("`{}` stands alone, without a value", self.name))),
        }
    }

    pub(crate) fn types(self) -> Result<Vec<Type>> {
        match self.value {
            Value::Types(types) => Ok(types),
            _ => Err(Error::new(self.name.span(), format!("`{0}` takes types: `{0}(OrderPaid, …)`", self.name))),
        }
    }
}

pub(crate) fn text_of(expr: &Expr) -> Option<LitStr> {
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.clone()),
        _ => None,
    }
}

/// An event type: what `CloudEvents` and every filter can carry.
pub(crate) fn check_event_type(text: &LitStr) -> Result<()> {
    match text.value().chars().find(|c| c.is_control() || c.is_whitespace()) {
        Some(wrong) => Err(Error::new(text.span(), format!("an event type cannot contain {wrong:?}"))),
        None if text.value().is_empty() => Err(Error::new(text.span(), "an event type cannot be empty")),
        None => Ok(()),
    }
}

pub(crate) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Whether one is a slip of the pen away from the other: at most two letters apart, or the beginning of it.
fn similar(a: &str, b: &str) -> bool {
    (a.len() >= 3 && (b.starts_with(a) || a.starts_with(b))) || distance(a.as_bytes(), b.as_bytes()) <= 2
}

/// The Levenshtein distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
