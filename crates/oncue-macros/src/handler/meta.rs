//! The annotation as a type: what registers the function.

use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Index, ItemFn, spanned::Spanned as _};

use super::{options::HandlerOptions, signature::Signature};

/// A block whose value is the annotation. All arguments after the event become one extractor, and the function one that
/// takes it: so every bound is asked for exactly once, at the argument's own type, and the compiler names the wrong one.
pub(super) fn meta(options: &HandlerOptions, signature: &Signature, function: &ItemFn) -> TokenStream {
    let generics = &signature.generics;
    let (parameters, arguments, where_clause) = (generics.parameters(), generics.arguments(), generics.where_clause());
    let types = generics.types();
    let extractor = extractor(signature);
    let call = call(signature, function);
    let register = register(options, signature, function);
    quote! {
        struct __OncueMeta<#parameters>(::core::marker::PhantomData<fn() -> #types>) #where_clause;

        impl<#parameters> ::oncue::handler::Meta for __OncueMeta<#arguments> #where_clause {
            fn register() -> ::oncue::handler::Registration {
                #extractor
                #call
                #register
            }
        }

        __OncueMeta::<#arguments>(::core::marker::PhantomData)
    }
}

fn extractor(signature: &Signature) -> TokenStream {
    let generics = &signature.generics;
    let (parameters, arguments, where_clause) = (generics.parameters(), generics.arguments(), generics.where_clause());
    let (types, fields) = (generics.types(), &signature.arguments);
    let of_each = |item: TokenStream| -> Vec<TokenStream> {
        let of = |field: &syn::Type| quote_spanned!(field.span()=> <#field as ::oncue::handler::Extract>::#item);
        fields.iter().map(of).collect()
    };
    let (keyed, emitting) = (of_each(quote!(KEYED)), of_each(quote!(EMITTING)));
    let per_event = of_each(quote!(PER_EVENT));
    let (extract, check) = (of_each(quote!(extract)), of_each(quote!(check)));
    quote! {
        struct __OncueArguments<#parameters>(#(#fields,)* ::core::marker::PhantomData<fn() -> #types>) #where_clause;

        #[diagnostic::do_not_recommend]
        impl<#parameters> ::oncue::handler::Extract for __OncueArguments<#arguments> #where_clause {
            const KEYED: bool = false #(|| #keyed)*;
            const EMITTING: bool = false #(|| #emitting)*;
            const PER_EVENT: bool = false #(|| #per_event)*;

            #[inline]
            fn extract(
                invocation: &::oncue::__private::Invocation,
            ) -> ::core::result::Result<Self, ::oncue::__private::Rejection> {
                let _ = invocation;
                ::core::result::Result::Ok(Self(#(#extract(invocation)?,)* ::core::marker::PhantomData))
            }

            fn check(
                states: &::oncue::handler::StateMap,
            ) -> ::core::result::Result<(), ::oncue::__private::String> {
                let _ = states;
                ::oncue::__private::all([#(#check(states)),*])
            }
        }
    }
}

/// The function with all its arguments in one.
fn call(signature: &Signature, function: &ItemFn) -> TokenStream {
    let generics = &signature.generics;
    let (parameters, arguments, where_clause) = (generics.parameters(), generics.arguments(), generics.where_clause());
    let (name, event, returned) = (&function.sig.ident, &signature.event, &signature.returned);
    let event = if signature.by_reference { quote!(&#event) } else { quote!(#event) };
    let output = if signature.is_async {
        quote!(impl ::core::future::Future<Output = #returned> + ::core::marker::Send)
    } else {
        quote!(#returned)
    };
    let fields = (0..signature.arguments.len()).map(Index::from);
    let turbofish = (!arguments.is_empty()).then(|| quote!(::<#arguments>));
    quote! {
        #[inline]
        fn __oncue_call<#parameters>(event: #event, arguments: __OncueArguments<#arguments>) -> #output #where_clause {
            let _ = &arguments;
            #name #turbofish(event, #(arguments.#fields),*).into_inner()
        }
    }
}

fn register(options: &HandlerOptions, signature: &Signature, function: &ItemFn) -> TokenStream {
    let name = &function.sig.ident;
    let plain_name = syn::ext::IdentExt::unraw(name).to_string();
    let id = options.id.as_ref().map_or_else(|| quote!(#plain_name), |id| quote!(#id));
    // Not `line!()`: that is the attribute's.
    let line = Literal::usize_unsuffixed(name.span().unwrap().line());
    let form = match (signature.is_async, signature.by_reference) {
        (true, false) if options.batch => quote!(batch),
        (true, false) => quote!(async_by_value),
        (true, true) => quote!(async_by_reference),
        (false, false) => quote!(plain_by_value),
        (false, true) => quote!(plain_by_reference),
    };
    let (event, returned, arguments) = (&signature.event, &signature.returned, signature.generics.arguments());
    let turbofish = (!arguments.is_empty()).then(|| quote!(::<#arguments>));
    let setters = &options.setters;
    let classify = options.classify.as_ref().map(|classify| {
        quote_spanned! {classify.span()=>
            let _: fn(&<#returned as ::oncue::handler::IntoOutcome>::Error) -> ::oncue::policy::ErrorClass = #classify;
        }
    });
    quote! {
        #classify
        let source = ::oncue::__private::Source { id: #id, file: ::core::file!(), line: #line };
        ::oncue::__private::#form::<#event, #returned, _, _>(&source, __oncue_call #turbofish) #(#setters)*
    }
}
