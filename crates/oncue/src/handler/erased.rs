//! Functions behind the door: decode, extract, call.

use std::{borrow::Borrow, marker::PhantomData};

use super::{
    Call, ErasedHandler, Function, Input, IntoOutcome, Invocation, RefFunction,
    extract::Arguments,
    function::marker::{Async, ByRef, Plain},
    returns::conclude,
    started::{Memory, start},
};

/// A function and how it is called; `Form` is one of the markers.
pub(super) struct Erased<F, Form> {
    function: F,
    form: PhantomData<fn() -> Form>,
}

impl<F, Form> Erased<F, Form> {
    pub(super) fn new(function: F) -> Self {
        Self { function, form: PhantomData }
    }
}

/// An async function that takes the event by value.
pub(super) struct ErasedAsync<F, E, Args> {
    function: F,
    form: PhantomData<fn() -> (E, Args)>,
}

impl<F, E, Args> ErasedAsync<F, E, Args> {
    pub(super) fn new(function: F) -> Self {
        Self { function, form: PhantomData }
    }
}

/// The value of an `Ok`; of an `Err`, the call that did not happen.
macro_rules! take {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(rejection) => return Call::Done(rejection.into()),
        }
    };
}

impl<F, E, Args> ErasedHandler for ErasedAsync<F, E, Args>
where
    F: Function<E, Args>,
    F::Output: Future<Output: IntoOutcome> + Send + 'static,
    E: Input,
    Args: Arguments,
{
    fn call(&self, invocation: &Invocation) -> Call {
        self.call_in(&mut Memory::default(), invocation)
    }

    fn call_in(&self, memory: &mut Memory, invocation: &Invocation) -> Call {
        let event = take!(E::take(invocation));
        let arguments = take!(Args::extract(invocation));
        let future = self.function.invoke(event, arguments);
        memory.start(future, invocation, |invocation, returned| conclude(invocation, Args::KEYED, returned))
    }
}

impl<F, E, Args> ErasedHandler for Erased<F, Plain<E, Args>>
where
    F: Function<E, Args>,
    F::Output: IntoOutcome,
    E: Input,
    Args: Arguments,
{
    fn call(&self, invocation: &Invocation) -> Call {
        let event = take!(E::take(invocation));
        let arguments = take!(Args::extract(invocation));
        if invocation.binding().inline {
            let returned = self.function.invoke(event, arguments);
            return Call::Done(conclude(invocation, Args::KEYED, returned));
        }
        let ending = invocation.clone();
        let function = self.function.clone();
        Call::Blocking(Box::new(move || conclude(&ending, Args::KEYED, function.invoke(event, arguments))))
    }
}

impl<F, E, Args, R> ErasedHandler for Erased<F, ByRef<Async<E, Args>, R>>
where
    F: for<'e> RefFunction<'e, E, Args, Output: Future<Output = R> + Send>,
    R: IntoOutcome + 'static,
    E: Input,
    Args: Arguments,
{
    fn call(&self, invocation: &Invocation) -> Call {
        let event = take!(E::take(invocation));
        let arguments = take!(Args::extract(invocation));
        let ending = invocation.clone();
        let function = self.function.clone();
        start(async move {
            let returned = function.invoke(&event, arguments).await;
            conclude(&ending, Args::KEYED, returned)
        })
    }
}

impl<F, E, Args, R> ErasedHandler for Erased<F, ByRef<Plain<E, Args>, R>>
where
    F: for<'e> RefFunction<'e, E, Args, Output = R>,
    R: IntoOutcome + 'static,
    E: Input,
    Args: Arguments,
{
    fn call(&self, invocation: &Invocation) -> Call {
        if invocation.binding().inline {
            let event = take!(E::borrow(invocation));
            let arguments = take!(Args::extract(invocation));
            let returned = self.function.invoke(event.borrow(), arguments);
            return Call::Done(conclude(invocation, Args::KEYED, returned));
        }
        self.blocking(invocation)
    }
}

impl<F, E, Args, R> Erased<F, ByRef<Plain<E, Args>, R>>
where
    F: for<'e> RefFunction<'e, E, Args, Output = R>,
    R: IntoOutcome + 'static,
    E: Input,
    Args: Arguments,
{
    /// Apart from the inline call, which is then small.
    #[inline(never)]
    fn blocking(&self, invocation: &Invocation) -> Call {
        let event = take!(E::take(invocation));
        let arguments = take!(Args::extract(invocation));
        let ending = invocation.clone();
        let function = self.function.clone();
        Call::Blocking(Box::new(move || conclude(&ending, Args::KEYED, function.invoke(&event, arguments))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::Envelope,
        handler::{Binding, HandlerExt as _, Outcome},
        transport::Position,
    };

    #[test]
    fn an_inline_call_of_a_raw_handler_leaves_nothing() {
        let handler = (|event: &Envelope| assert_eq!(event.event_type(), "a")).named("raw").types(["a"]).handler;
        let event = Envelope::builder("a").data("x").build().unwrap();
        let binding = Arc::new(Binding { inline: true, ..Binding::alone("raw") });
        let invocation = Invocation::new(binding, event, Position::new(0, 0, 0), 1, None);
        assert!(matches!(handler.call(&invocation), Call::Done(Outcome::Ack)));
        assert!(invocation.is_untouched(), "no effects: so no lock");
    }
}
