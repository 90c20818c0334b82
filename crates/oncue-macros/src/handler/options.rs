//! The options of `#[handler]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Error, Expr, ExprLit, Lit, LitStr, Result,
    parse::{Parse, ParseStream},
    spanned::Spanned as _,
};

use crate::options::{Named, Options, check_event_type, list, text_of};

const KNOWN: &[&str] = &[
    "id",
    "retry",
    "concurrency",
    "timeout",
    "inline",
    "on",
    "topic",
    "emits",
    "classify",
    "on_dead_letter",
    "start",
    "ordered",
    "pipelined",
    "order",
    "priority",
    "batch",
    "batch_wait",
    "layer",
    "filter",
    "admission",
    "paused",
];

pub(super) struct HandlerOptions {
    pub(super) id: Option<LitStr>,
    /// Where `inline` stands.
    pub(super) inline: Option<Span>,
    pub(super) classify: Option<Expr>,
    /// Whether it takes several events at once.
    pub(super) batch: bool,
    /// `.retry(…)`, `.concurrency(…)`: calls on a `Registration`.
    pub(super) setters: Vec<TokenStream>,
}

impl Parse for HandlerOptions {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options: Options = input.parse()?;
        let mut setters = Vec::new();
        let mut set = |name: &str, of: fn(Named) -> Result<TokenStream>| -> Result<()> {
            if let Some(option) = options.take(name) {
                setters.push(of(option)?);
            }
            Ok(())
        };
        set("retry", retry)?;
        set("concurrency", |option| positive(option, "would never handle anything"))?;
        set("timeout", |option| duration(option, "would fail every attempt"))?;
        set("on", on)?;
        set("topic", |option| option.text().map(|topic| quote!(.topic(#topic))))?;
        set("emits", emits)?;
        set("on_dead_letter", |option| choice(option, "OnDeadLetter", &[("continue", "Continue"), ("hold", "Hold")]))?;
        set("start", |option| choice(option, "Start", &[("earliest", "Earliest"), ("latest", "Latest")]))?;
        set("ordered", |option| choice(option, "Ordered", &[("strict", "Strict"), ("relaxed", "Relaxed")]))?;
        set("pipelined", |option| option.flag().map(|span| quote_spanned!(span=> .pipelined())))?;
        set("order", |option| {
            choice(option, "Order", &[("fifo", "Fifo"), ("lifo", "Lifo"), ("priority", "Priority")])
        })?;
        set("priority", |option| option.expr().map(|rules| quote_spanned!(rules.span()=> .priority(#rules))))?;
        set("filter", |option| option.expr().map(|filter| quote_spanned!(filter.span()=> .filter(#filter))))?;
        set("admission", |option| option.expr().map(|rules| quote_spanned!(rules.span()=> .admission(#rules))))?;
        set("paused", |option| option.flag().map(|span| quote_spanned!(span=> .paused())))?;
        set("layer", |option| option.expr().map(|layer| quote_spanned!(layer.span()=> .layer(#layer))))?;
        let before = setters.len();
        let mut set = |name: &str, of: fn(Named) -> Result<TokenStream>| -> Result<()> {
            if let Some(option) = options.take(name) {
                setters.push(of(option)?);
            }
            Ok(())
        };
        set("batch", |option| positive(option, "would never handle anything"))?;
        set("batch_wait", |option| duration(option, "is no wait: remove `batch_wait`, or give a time"))?;
        let batch = setters.len() > before;
        let id = options.take("id").map(Named::text).transpose()?;
        if let Some(id) = &id {
            check_id(id)?;
        }
        let inline = options.take("inline").map(Named::flag).transpose()?;
        let classify = options.take("classify").map(Named::expr).transpose()?;
        options.finish(KNOWN)?;
        if inline.is_some() {
            setters.push(quote!(.inline()));
        }
        if let Some(class_of) = &classify {
            setters.push(quote_spanned!(class_of.span()=> .classify(#class_of)));
        }
        Ok(Self { id, inline, classify, batch, setters })
    }
}

fn check_id(id: &LitStr) -> Result<()> {
    match id.value().chars().find(|c| c.is_control() || c.is_whitespace()) {
        Some(wrong) => Err(Error::new(id.span(), format!("an id cannot contain {wrong:?}"))),
        None => Ok(()),
    }
}

fn retry(option: Named) -> Result<TokenStream> {
    let retry = option.expr()?;
    if text_of(&retry).is_some_and(|name| name.value().is_empty()) {
        return Err(Error::new(retry.span(), "`retry` names a policy of the configuration, or is one"));
    }
    Ok(quote_spanned!(retry.span()=> .retry(#retry)))
}

/// A number of 1 or more, or an expression for one; `zero` says what 0 would do.
fn positive(option: Named, zero: &str) -> Result<TokenStream> {
    let name = option.name.clone();
    let number = option.expr()?;
    if let Expr::Lit(ExprLit { lit: Lit::Int(literal), .. }) = &number
        && literal.base10_parse::<usize>()? == 0
    {
        return Err(Error::new(literal.span(), format!("`{name} = 0` {zero}: give 1 or more")));
    }
    let setter = syn::Ident::new(&name.to_string(), number.span());
    Ok(quote_spanned!(number.span()=> .#setter(#number)))
}

/// A time as text (`"30s"`), or an expression for one; `zero` says what 0 would do.
fn duration(option: Named, zero: &str) -> Result<TokenStream> {
    let name = option.name.clone();
    let time = option.expr()?;
    let Some(text) = text_of(&time) else {
        let setter = syn::Ident::new(&name.to_string(), time.span());
        return Ok(quote_spanned!(time.span()=> .#setter(#time)));
    };
    match milliseconds(&text.value()) {
        Some(0) => Err(Error::new(text.span(), format!("`{name} = 0` {zero}"))),
        Some(time) => Ok(quote!(.#name(::core::time::Duration::from_millis(#time)))),
        None => {
            let message = format!(
                "`{name}` is a number and a unit (`\"500ms\"`, `\"30s\"`, `\"5m\"`, `\"1h\"`), or a `Duration`"
            );
            Err(Error::new(text.span(), message))
        }
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn on(option: Named) -> Result<TokenStream> {
    let expr = option.expr()?;
    let wrong = |span| Error::new(span, "`on` takes event types: `on = \"order.created\"` or `on = [\"a\", \"b\"]`");
    let types = match (&expr, text_of(&expr)) {
        (_, Some(event_type)) => vec![event_type],
        (Expr::Array(array), _) => {
            array.elems.iter().map(|expr| text_of(expr).ok_or_else(|| wrong(expr.span()))).collect::<Result<_>>()?
        }
        _ => return Err(wrong(expr.span())),
    };
    if types.is_empty() {
        return Err(wrong(expr.span()));
    }
    types.iter().try_for_each(check_event_type)?;
    Ok(quote!(.types([#(#types),*])))
}

fn emits(option: Named) -> Result<TokenStream> {
    let calls = option.types()?.into_iter().map(|event| quote_spanned!(event.span()=> .emits::<#event>()));
    Ok(calls.collect())
}

/// A word of a few, or an expression of the enum that they stand for.
fn choice(option: Named, of: &str, words: &[(&str, &str)]) -> Result<TokenStream> {
    let name = option.name.clone();
    let expr = option.expr()?;
    let Some(text) = text_of(&expr) else {
        return Ok(quote_spanned!(expr.span()=> .#name(#expr)));
    };
    let Some((_, variant)) = words.iter().find(|(word, _)| *word == text.value()) else {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        return Err(Error::new(text.span(), format!("`{name}` is one of {}", list(&known))));
    };
    let (of, variant) = (syn::Ident::new(of, text.span()), syn::Ident::new(variant, text.span()));
    Ok(quote!(.#name(::oncue::handler::#of::#variant)))
}
