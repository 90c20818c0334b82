//! `#[derive(Event)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Data, DataEnum, DeriveInput, Error, Expr, ExprPath, Fields, Ident, Lit, LitStr, Result, Type, Variant,
    spanned::Spanned as _,
};

use crate::{
    coding::Coding,
    options::{Options, check_event_type},
};

pub(crate) fn derive(input: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(input)?;
    if !input.generics.params.is_empty() {
        let message = "an event cannot be generic: its type is one string; derive `Event` on a concrete type";
        return Err(Error::new(input.generics.params.span(), message));
    }
    let mut options = Options::of(&input.attrs, "event")?;
    let topic = options.take("topic").map(|option| option.text()).transpose()?;
    let schema = options.take("schema").map(|option| option.text()).transpose()?;
    let body = match &input.data {
        Data::Struct(data) => of_struct(&input.ident, &data.fields, options)?,
        Data::Enum(data) => of_enum(&input.ident, data, options)?,
        Data::Union(data) => return Err(Error::new(data.union_token.span, "a union cannot be an event")),
    };
    let name = &input.ident;
    let topic = topic.map(|topic| quote!(const TOPIC: &'static str = #topic;));
    let schema = schema.map(
        |schema| quote!(const SCHEMA: ::core::option::Option<&'static str> = ::core::option::Option::Some(#schema);),
    );
    Ok(quote! {
        #[automatically_derived]
        impl ::oncue::event::Event for #name {
            #topic
            #schema
            #body
        }
    })
}

fn of_struct(name: &Ident, fields: &Fields, mut options: Options) -> Result<TokenStream> {
    let Some(event_type) = options.take("type") else {
        let message = "an event needs a type: add `#[event(type = \"order.created\")]`";
        return Err(Error::new(name.span(), message));
    };
    let event_type = event_type.text()?;
    check_event_type(&event_type)?;
    let key = options.take("key").map(|option| option.expr()).transpose()?.map(|key| key_fn(&key)).transpose()?;
    let coding = Coding::of(name, fields, &event_type, &mut options)?;
    options.finish(&["type", "key", "topic", "schema", "codec", "content_type"])?;
    let Coding { content_type, encode, decode } = coding;
    Ok(quote! {
        const TYPES: &'static [&'static str] = &[#event_type];
        #content_type

        fn event_type(&self) -> &'static str {
            #event_type
        }

        #key

        fn encode(&self) -> ::core::result::Result<::oncue::__private::Bytes, ::oncue::event::CodecError> {
            #encode
        }

        fn decode(event_type: &str, data: &[u8]) -> ::core::result::Result<Self, ::oncue::event::CodecError> {
            #decode
        }
    })
}

fn key_fn(key: &Expr) -> Result<TokenStream> {
    let key = of_self(key)?;
    let value = quote_spanned!(key.span()=> ::oncue::__private::key(&#key));
    Ok(quote! {
        fn key(&self) -> ::core::option::Option<::oncue::__private::Cow<'_, str>> {
            ::core::option::Option::Some(#value)
        }
    })
}

/// `order_id`, `customer.id`, `customer.id()` and `0` are of `self`; an expression that names `self` is left as it is.
fn of_self(key: &Expr) -> Result<Expr> {
    let mut key = key.clone();
    let mut root = &mut key;
    loop {
        root = match root {
            Expr::Field(field) => &mut field.base,
            Expr::MethodCall(call) => &mut call.receiver,
            Expr::Reference(reference) => &mut reference.expr,
            other => break other_root(other)?,
        };
    }
    Ok(key)
}

fn other_root(root: &mut Expr) -> Result<()> {
    match root {
        Expr::Path(ExprPath { path, .. }) => {
            if let Some(field) = path.get_ident().filter(|ident| *ident != "self").cloned() {
                *root = syn::parse_quote_spanned!(field.span()=> self.#field);
            }
            Ok(())
        }
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(index) if index.suffix().is_empty() => {
                let index = syn::Index { index: index.base10_parse()?, span: index.span() };
                *root = syn::parse_quote_spanned!(index.span=> self.#index);
                Ok(())
            }
            other => {
                let message = "`key` takes a field, without quotes: `key = order_id`, or an expression of `self`";
                Err(Error::new(other.span(), message))
            }
        },
        _ => Ok(()),
    }
}

/// A variant of an event enum.
struct EventVariant<'a> {
    name: &'a Ident,
    /// Its own type, if it has one.
    event_type: Option<LitStr>,
    /// What it wraps; nothing for a unit variant.
    inner: Option<&'a Type>,
}

impl<'a> EventVariant<'a> {
    fn of(variant: &'a Variant) -> Result<Self> {
        let mut options = Options::of(&variant.attrs, "event")?;
        let event_type = options.take("type").map(|option| option.text()).transpose()?;
        for option in ["key", "codec", "content_type"] {
            if let Some(option) = options.take(option) {
                let name = &option.name;
                let message = format!("a variant has no `{name}` of its own: it is that of the event that it wraps");
                return Err(Error::new(name.span(), message));
            }
        }
        options.finish(&["type"])?;
        let inner = match &variant.fields {
            Fields::Unit => None,
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => fields.unnamed.first().map(|field| &field.ty),
            other => {
                let message = "a variant of an event enum stands alone or wraps one event: `Created(OrderCreated)`";
                return Err(Error::new(other.span(), message));
            }
        };
        if let Some(event_type) = &event_type {
            check_event_type(event_type)?;
        } else if inner.is_none() {
            let message = format!("variant `{0}` needs a type: `#[event(type = \"…\")] {0}`", variant.ident);
            return Err(Error::new(variant.ident.span(), message));
        }
        Ok(Self { name: &variant.ident, event_type, inner })
    }

    /// Its type, as a constant expression.
    fn event_type(&self) -> TokenStream {
        match (&self.event_type, self.inner) {
            (Some(own), _) => quote!(#own),
            (None, Some(inner)) => quote_spanned!(inner.span()=> ::oncue::__private::only_type::<#inner>()),
            (None, None) => quote!(""),
        }
    }
}

fn of_enum(name: &Ident, data: &DataEnum, mut options: Options) -> Result<TokenStream> {
    let inner = "the struct in each variant";
    for (option, instead) in [("type", "each variant"), ("key", inner), ("codec", inner), ("content_type", inner)] {
        if let Some(option) = options.take(option) {
            let message = format!("`{}` of an event enum stands on {instead}", option.name);
            return Err(Error::new(option.name.span(), message));
        }
    }
    options.finish(&["topic", "schema"])?;
    let variants = data.variants.iter().map(EventVariant::of).collect::<Result<Vec<_>>>()?;
    if variants.is_empty() {
        return Err(Error::new(name.span(), "an event enum needs a variant: each is an event type"));
    }
    for (index, variant) in variants.iter().enumerate() {
        let Some(twice) = &variant.event_type else { continue };
        let mut earlier = variants[..index].iter().filter_map(|earlier| earlier.event_type.as_ref());
        if earlier.any(|earlier| earlier.value() == twice.value()) {
            return Err(Error::new(twice.span(), format!("event type {:?} stands on two variants", twice.value())));
        }
    }
    Ok(enum_body(&variants))
}

fn enum_body(variants: &[EventVariant<'_>]) -> TokenStream {
    let types: Vec<_> = variants.iter().map(EventVariant::event_type).collect();
    let names: Vec<_> = variants.iter().map(|variant| variant.name).collect();
    let keys = variants.iter().map(|EventVariant { name, inner, .. }| match inner {
        None => quote!(Self::#name => ::core::option::Option::None),
        Some(inner) => {
            quote_spanned!(inner.span()=> Self::#name(event) => <#inner as ::oncue::event::Event>::key(event))
        }
    });
    let encodings = variants.iter().map(|EventVariant { name, inner, .. }| match inner {
        None => quote!(Self::#name => ::core::result::Result::Ok(::oncue::__private::Bytes::new())),
        Some(inner) => {
            quote_spanned!(inner.span()=> Self::#name(event) => <#inner as ::oncue::event::Event>::encode(event))
        }
    });
    let decodings = variants.iter().zip(&types).map(|(EventVariant { name, inner, .. }, event_type)| {
        let value = match inner {
            None => quote!(::core::result::Result::Ok(Self::#name)),
            Some(inner) => {
                quote_spanned!(inner.span()=> <#inner as ::oncue::event::Event>::decode(event_type, data).map(Self::#name))
            }
        };
        quote!(if event_type == const { #event_type } { return #value; })
    });
    let content_types = content_types(variants, &types);
    quote! {
        const TYPES: &'static [&'static str] = &[#(#types),*];
        #content_types

        fn event_type(&self) -> &'static str {
            match self { #(Self::#names { .. } => const { #types }),* }
        }

        fn key(&self) -> ::core::option::Option<::oncue::__private::Cow<'_, str>> {
            match self { #(#keys),* }
        }

        fn encode(&self) -> ::core::result::Result<::oncue::__private::Bytes, ::oncue::event::CodecError> {
            match self { #(#encodings),* }
        }

        fn decode(event_type: &str, data: &[u8]) -> ::core::result::Result<Self, ::oncue::event::CodecError> {
            let _ = data;
            #(#decodings)*
            ::core::result::Result::Err(::oncue::__private::unknown_type::<Self>(event_type))
        }
    }
}

/// Each event's own; the enum's is that of the first one that it wraps.
fn content_types(variants: &[EventVariant<'_>], types: &[TokenStream]) -> Option<TokenStream> {
    let first = variants.iter().find_map(|variant| variant.inner)?;
    let first = quote_spanned!(first.span()=> <#first as ::oncue::event::Event>::CONTENT_TYPE);
    let each = variants.iter().zip(types).filter_map(|(variant, event_type)| {
        let inner = variant.inner?;
        let content_type =
            quote_spanned!(inner.span()=> <#inner as ::oncue::event::Event>::content_type_of(event_type));
        Some(quote!(if event_type == const { #event_type } { return #content_type; }))
    });
    Some(quote! {
        const CONTENT_TYPE: &'static str = #first;

        fn content_type_of(event_type: &str) -> &'static str {
            #(#each)*
            Self::CONTENT_TYPE
        }
    })
}
