//! What a handler function takes and returns.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Error, FnArg, Pat, PatType, Result, ReturnType, Safety, Type, spanned::Spanned as _};

use super::generics::Generics;

/// Most arguments after the event.
const MAX_ARGUMENTS: usize = 6;

pub(super) struct Signature {
    pub(super) is_async: bool,
    /// The event's type, without the reference.
    pub(super) event: Type,
    /// The types of the other arguments.
    pub(super) arguments: Vec<Type>,
    /// The arguments as the function takes them: a name each.
    pub(super) parameters: Vec<TokenStream>,
    /// Binds the arguments' patterns, inside the body: so all arguments are moved there, used or not.
    pub(super) bindings: Vec<TokenStream>,
    pub(super) returned: Type,
    pub(super) by_reference: bool,
    pub(super) generics: Generics,
}

impl Signature {
    pub(super) fn of(signature: &syn::Signature) -> Result<Self> {
        refuse(signature)?;
        let mut typed = Vec::new();
        for argument in &signature.inputs {
            match argument {
                FnArg::Typed(argument) => typed.push(argument),
                FnArg::Receiver(receiver) => {
                    let message =
                        "a handler is a free function; an object handles by `impl Handle<OrderCreated> for …`";
                    return Err(Error::new(receiver.span(), message));
                }
            }
        }
        let Some((event, arguments)) = typed.split_first() else {
            let message = "a handler takes the event as its first argument";
            return Err(Error::new(signature.ident.span(), message));
        };
        if let Some(surplus) = arguments.get(MAX_ARGUMENTS) {
            let message = format!("a handler takes at most {MAX_ARGUMENTS} arguments after the event");
            return Err(Error::new(surplus.span(), message));
        }
        for argument in &typed {
            if matches!(*argument.ty, Type::ImplTrait(_)) {
                let message = "a handler's argument needs a type with a name: make the function generic";
                return Err(Error::new(argument.ty.span(), message));
            }
        }
        let (parameters, bindings) =
            typed.iter().enumerate().map(|(index, argument)| parameter(index, argument)).unzip();
        Ok(Self {
            is_async: signature.asyncness.is_some(),
            event: referent(&event.ty),
            arguments: arguments.iter().map(|argument| (*argument.ty).clone()).collect(),
            parameters,
            bindings,
            returned: returned(&signature.output)?,
            by_reference: matches!(*event.ty, Type::Reference(_)),
            generics: Generics::of(&signature.generics),
        })
    }
}

fn refuse(signature: &syn::Signature) -> Result<()> {
    let refused = [
        (signature.constness.map(|token| token.span()), "const"),
        (matches!(signature.safety, Safety::Unsafe(_)).then(|| signature.safety.span()), "unsafe"),
        (signature.abi.as_ref().map(|token| token.span()), "extern"),
        (signature.variadic.as_ref().map(|token| token.span()), "variadic"),
    ];
    match refused.into_iter().find_map(|(span, what)| Some((span?, what))) {
        Some((span, what)) => Err(Error::new(span, format!("a handler cannot be `{what}`"))),
        None => Ok(()),
    }
}

fn referent(event: &Type) -> Type {
    match event {
        Type::Reference(reference) => (*reference.elem).clone(),
        other => other.clone(),
    }
}

fn parameter(index: usize, argument: &PatType) -> (TokenStream, TokenStream) {
    let PatType { attrs, pat, ty, .. } = argument;
    // A parameter keeps its name, for those who read the signature; a pattern is bound inside.
    let name = match &**pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => pattern.ident.clone(),
        _ => format_ident!("argument_{index}"),
    };
    let binding = match &**pat {
        Pat::Wild(_) => quote!(let _unused = #name;),
        pat => quote_spanned!(pat.span()=> let #pat = #name;),
    };
    (quote!(#(#attrs)* #name: #ty), binding)
}

fn returned(output: &ReturnType) -> Result<Type> {
    match output {
        ReturnType::Default => Ok(syn::parse_quote!(())),
        ReturnType::Type(_, returned) => match &**returned {
            Type::ImplTrait(_) => {
                let message = "a handler's return type needs a name; of a future: make it an `async fn`";
                Err(Error::new(returned.span(), message))
            }
            Type::Never(never) => Err(Error::new(never.span(), "a handler has to return")),
            other => Ok(other.clone()),
        },
    }
}
