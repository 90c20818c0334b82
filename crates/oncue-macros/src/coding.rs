//! How a derived event becomes bytes and back: the options `codec` and `content_type`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{Error, Expr, ExprPath, Fields, Ident, LitStr, Result, Type, spanned::Spanned as _};

use crate::options::Options;

/// Parts of the implementation of `Event` for a struct.
pub(crate) struct Coding {
    /// The constant, if it is not the trait's default.
    pub(crate) content_type: Option<TokenStream>,
    /// The body of `encode`.
    pub(crate) encode: TokenStream,
    /// The body of `decode`.
    pub(crate) decode: TokenStream,
}

/// What stands behind `codec =`.
enum Codec {
    /// Nothing: JSON.
    Default,
    /// A type.
    Type(ExprPath),
    /// The word `raw`, which is no type.
    Raw(Span),
}

impl Coding {
    pub(crate) fn of(name: &Ident, fields: &Fields, event_type: &LitStr, options: &mut Options) -> Result<Self> {
        if matches!(fields, Fields::Unit) {
            return Self::of_unit(options);
        }
        let codec = codec(options)?;
        let own = options.take("content_type").map(|option| option.text()).transpose()?;
        own.as_ref().map_or(Ok(()), check_media_type)?;
        // At the name of the type: a missing `Serialize` is reported there.
        let coding = match codec {
            Codec::Default => {
                let json = quote_spanned!(name.span()=> ::oncue::event::codec::Json);
                Self { content_type: None, ..Self::through(name, &json, event_type) }
            }
            Codec::Type(codec) => Self::through(name, &codec.into_token_stream(), event_type),
            Codec::Raw(raw) => Self::raw(only_field(fields, raw)?, event_type),
        };
        let content_type = match own {
            Some(own) => Some(quote!(const CONTENT_TYPE: &'static str = #own;)),
            None => coding.content_type,
        };
        Ok(Self { content_type, ..coding })
    }

    fn of_unit(options: &mut Options) -> Result<Self> {
        for option in ["codec", "content_type"] {
            if let Some(option) = options.take(option) {
                let message = format!("a struct without fields has no data: `{}` says nothing of it", option.name);
                return Err(Error::new(option.name.span(), message));
            }
        }
        Ok(Self {
            content_type: None,
            encode: quote!(::core::result::Result::Ok(::oncue::__private::Bytes::new())),
            decode: quote!({
                let _ = (event_type, data);
                ::core::result::Result::Ok(Self)
            }),
        })
    }

    fn through(name: &Ident, codec: &TokenStream, event_type: &LitStr) -> Self {
        let codec = quote_spanned!(name.span()=> <#codec as ::oncue::event::codec::Codec<#name>>);
        Self {
            content_type: Some(quote!(const CONTENT_TYPE: &'static str = #codec::CONTENT_TYPE;)),
            encode: quote!(#codec::encode(#event_type, self)),
            decode: quote!(#codec::decode(event_type, data)),
        }
    }

    /// The field takes the place of the value.
    fn raw(field: &Type, event_type: &LitStr) -> Self {
        let codec = quote_spanned!(field.span()=> <::oncue::event::codec::Raw as ::oncue::event::codec::Codec<#field>>);
        Self {
            content_type: Some(quote!(const CONTENT_TYPE: &'static str = #codec::CONTENT_TYPE;)),
            encode: quote!(::oncue::__private::within::<Self, _>(#codec::encode(#event_type, &self.0))),
            decode: quote!(::oncue::__private::within::<Self, _>(#codec::decode(event_type, data)).map(Self)),
        }
    }
}

fn codec(options: &mut Options) -> Result<Codec> {
    let Some(option) = options.take("codec") else {
        return Ok(Codec::Default);
    };
    match option.expr()? {
        Expr::Path(path) => match path.path.get_ident() {
            Some(word) if word == "raw" => Ok(Codec::Raw(word.span())),
            _ => Ok(Codec::Type(path)),
        },
        other => {
            let message = "`codec` takes a type, without quotes: `codec = MessagePack`; or the word `raw`";
            Err(Error::new(other.span(), message))
        }
    }
}

fn only_field(fields: &Fields, raw: Span) -> Result<&Type> {
    match fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(&fields.unnamed[0].ty),
        _ => {
            let message = "`codec = raw` is for a struct around one field without a name: `struct ImageStored(Bytes);`";
            Err(Error::new(raw, message))
        }
    }
}

/// `type/subtype`, perhaps with parameters.
fn check_media_type(text: &LitStr) -> Result<()> {
    let value = text.value();
    let (media_type, _) = value.split_once(';').unwrap_or((&value, ""));
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    let is_media_type = media_type.split_once('/').is_some_and(|(kind, name)| is_name(kind) && is_name(name));
    if is_media_type && !value.contains(char::is_control) {
        return Ok(());
    }
    Err(Error::new(text.span(), "`content_type` takes a media type: `content_type = \"image/png\"`"))
}
