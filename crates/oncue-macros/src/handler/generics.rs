//! The generic parameters of a handler function, for the items that the macro adds.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};
use syn::{GenericParam, WherePredicate};

/// Types and constants: lifetimes are of the call, and nothing that is registered depends on one.
pub(super) struct Generics {
    parameters: Vec<GenericParam>,
    predicates: Vec<WherePredicate>,
}

impl Generics {
    pub(super) fn of(generics: &syn::Generics) -> Self {
        let registered = |parameter: &&GenericParam| !matches!(parameter, GenericParam::Lifetime(_));
        let predicates = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
        Self {
            parameters: generics.params.iter().filter(registered).cloned().collect(),
            predicates: predicates.filter(|predicate| matches!(predicate, WherePredicate::Type(_))).cloned().collect(),
        }
    }

    /// `B: Bank, const N: usize`.
    pub(super) fn parameters(&self) -> TokenStream {
        let parameters = &self.parameters;
        quote!(#(#parameters),*)
    }

    /// `B, N`.
    pub(super) fn arguments(&self) -> TokenStream {
        let names = self.parameters.iter().map(|parameter| match parameter {
            GenericParam::Lifetime(parameter) => parameter.lifetime.to_token_stream(),
            GenericParam::Type(parameter) => parameter.ident.to_token_stream(),
            GenericParam::Const(parameter) => parameter.ident.to_token_stream(),
        });
        quote!(#(#names),*)
    }

    /// `(B,)`: the types, for a `PhantomData`.
    pub(super) fn types(&self) -> TokenStream {
        let names = self.parameters.iter().filter_map(|parameter| match parameter {
            GenericParam::Type(parameter) => Some(&parameter.ident),
            _ => None,
        });
        quote!((#(#names,)*))
    }

    /// `where …`.
    pub(super) fn where_clause(&self) -> TokenStream {
        let predicates = &self.predicates;
        quote!(where #(#predicates),*)
    }
}
