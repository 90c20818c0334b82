//! `#[handler]`.

mod generics;
mod meta;
mod options;
mod signature;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{ItemFn, Result, spanned::Spanned as _};

use options::HandlerOptions;
use signature::Signature;

/// The function as a handler; if something is wrong, the function as it was and the error, so that nothing else fails.
pub(crate) fn expand(options: TokenStream, item: &TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let error = not_a_function(item).unwrap_or(error).into_compile_error();
            return quote!(#item #error);
        }
    };
    expand_function(options, &function).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        quote!(#function #error)
    })
}

/// An error that says what the attribute goes on, if it is on something else.
fn not_a_function(item: &TokenStream) -> Option<syn::Error> {
    let other: syn::Item = syn::parse2(item.clone()).ok()?;
    let message = "`#[handler]` goes on a function; an object handles by `impl Handle<OrderCreated> for …`";
    match other {
        syn::Item::Fn(_) => None,
        _ => Some(syn::Error::new(proc_macro2::Span::call_site(), message)),
    }
}

fn expand_function(options: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let options: HandlerOptions = syn::parse2(options)?;
    let again =
        |attribute: &&syn::Attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "handler");
    if let Some(again) = function.attrs.iter().find(again) {
        return Err(syn::Error::new(again.span(), "it is a handler already: give all options in one `#[handler(…)]`"));
    }
    let signature = Signature::of(&function.sig)?;
    if let (Some(inline), true) = (options.inline, signature.is_async) {
        return Err(syn::Error::new(
            inline,
            "`inline` is for a plain `fn`: an `async fn` always runs where it is called",
        ));
    }
    if options.batch && (!signature.is_async || signature.by_reference) {
        let message = "a batch handler is an `async fn` that takes its `Batch<T>` by value";
        return Err(syn::Error::new(function.sig.ident.span(), message));
    }
    let meta = meta::meta(&options, &signature, function);
    let (parameters, bindings, returned) = (&signature.parameters, &signature.bindings, &signature.returned);
    let ItemFn { attrs, vis, sig, block, .. } = function;
    let (name, generics, where_clause) = (&sig.ident, &sig.generics.params, &sig.generics.where_clause);
    let statements = &block.stmts;
    let uses = signature.generics.arguments();
    let body = quote!({
        #(#bindings)*
        #(#statements)*
    });
    // At the name: what is wrong with the future as a whole is reported there.
    let (output, value) = if signature.is_async {
        (
            quote_spanned!(name.span()=> ::oncue::handler::Annotated<
                impl ::oncue::handler::Meta + use<#uses>,
                impl ::core::future::Future<Output = #returned> + ::core::marker::Send,
            >),
            quote!(::oncue::handler::Annotated::new(__oncue_meta, async move {
                // Tells the compiler the type before it reads the body.
                if let ::core::option::Option::Some(returned) = ::core::option::Option::None::<#returned> {
                    return returned;
                }
                #body
            })),
        )
    } else {
        (
            quote!(::oncue::handler::AnnotatedValue<impl ::oncue::handler::Meta + use<#uses>, #returned>),
            quote!(::oncue::handler::AnnotatedValue::new(__oncue_meta, (move || -> #returned #body)())),
        )
    };
    Ok(quote! {
        #(#attrs)*
        #[allow(
            clippy::diverging_sub_expression, clippy::let_and_return, clippy::let_unit_value,
            clippy::needless_pass_by_value, clippy::redundant_closure_call, clippy::redundant_locals,
            clippy::unused_async, clippy::unused_unit, clippy::type_complexity
        )]
        #vis fn #name<#generics>(#(#parameters),*) -> #output #where_clause {
            let __oncue_meta = { #meta };
            #value
        }
    })
}
