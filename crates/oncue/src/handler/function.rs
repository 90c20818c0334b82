//! Functions as handlers: async and plain, annotated or not, the event by value or by reference.

use std::{marker::PhantomData, sync::Arc};

use super::{
    Annotated, AnnotatedValue, ErasedHandler, Input, IntoOutcome, Location, Meta, Registration,
    erased::{Erased, ErasedAsync},
    extract::Arguments,
    registration::name_of,
};

/// A form of handler, told from the others by its `Marker`. Functions and closures have it by themselves, objects by
/// [`Handle`](super::Handle); nobody else implements it: other forms are an [`ErasedHandler`] in a [`Registration`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler takes an event, then extractors, and returns `()`, events, or a `Result` of these; with `#[handler]` on the function, the compiler says what of it is wrong; what a closure captures has to be `Clone`, `Send` and `Sync`"
)]
pub trait Handler<Marker>: Sized + Send + Sync + 'static {
    /// Erases it.
    fn register(self, location: Location) -> Registration;
}

/// A function that takes the event by value.
pub trait Function<E, Args>: Clone + Send + Sync + 'static {
    /// What it returns.
    type Output;

    /// Calls it.
    fn invoke(&self, event: E, arguments: Args) -> Self::Output;
}

/// A function that takes the event by reference.
pub trait RefFunction<'e, E: 'e, Args>: Clone + Send + Sync + 'static {
    /// What it returns.
    type Output;

    /// Calls it.
    fn invoke(&self, event: &'e E, arguments: Args) -> Self::Output;
}

macro_rules! functions {
    ($($argument:ident),*) => {
        #[allow(non_snake_case, reason = "an argument is named as its type")]
        impl<Fun, E, R, $($argument),*> Function<E, ($($argument,)*)> for Fun
        where
            Fun: Fn(E, $($argument),*) -> R + Clone + Send + Sync + 'static,
        {
            type Output = R;

            #[inline]
            fn invoke(&self, event: E, ($($argument,)*): ($($argument,)*)) -> R {
                self(event, $($argument),*)
            }
        }

        #[allow(non_snake_case, reason = "an argument is named as its type")]
        impl<'e, Fun, E: 'e, R, $($argument),*> RefFunction<'e, E, ($($argument,)*)> for Fun
        where
            Fun: Fn(&'e E, $($argument),*) -> R + Clone + Send + Sync + 'static,
        {
            type Output = R;

            #[inline]
            fn invoke(&self, event: &'e E, ($($argument,)*): ($($argument,)*)) -> R {
                self(event, $($argument),*)
            }
        }
    };
}

functions!();
functions!(A);
functions!(A, B);
functions!(A, B, C);
functions!(A, B, C, D);
functions!(A, B, C, D, E2);
functions!(A, B, C, D, E2, F);

/// How a function was found to be a handler: markers that keep the implementations apart.
#[doc(hidden)]
pub(super) mod marker {
    use super::PhantomData;

    /// An async function.
    pub struct Async<E, Args>(PhantomData<(E, Args)>);
    /// An annotated async function.
    pub struct AnnotatedAsync<E, Args>(PhantomData<(E, Args)>);
    /// A plain function.
    pub struct Plain<E, Args>(PhantomData<(E, Args)>);
    /// An annotated plain function.
    pub struct AnnotatedPlain<E, Args>(PhantomData<(E, Args)>);
    /// One without annotation that takes the event by reference; `R` is what it returns in the end.
    pub struct ByRef<Form, R>(PhantomData<(Form, R)>);
}

use marker::{AnnotatedAsync, AnnotatedPlain, Async, ByRef, Plain};

impl<F, E, Args> Handler<Async<E, Args>> for F
where
    F: Function<E, Args>,
    F::Output: Future<Output: IntoOutcome> + Send + 'static,
    E: Input,
    Args: Arguments,
{
    fn register(self, location: Location) -> Registration {
        let erased = ErasedAsync::new(self);
        registration::<E, Args, <F::Output as Future>::Output>(name_of::<F>(), Arc::new(erased), location)
    }
}

impl<F, E, Args> Handler<Plain<E, Args>> for F
where
    F: Function<E, Args>,
    F::Output: IntoOutcome,
    E: Input,
    Args: Arguments,
{
    fn register(self, location: Location) -> Registration {
        let erased = Erased::<F, Plain<E, Args>>::new(self);
        registration::<E, Args, F::Output>(name_of::<F>(), Arc::new(erased), location)
    }
}

impl<F, E, Args, R> Handler<ByRef<Async<E, Args>, R>> for F
where
    F: for<'e> RefFunction<'e, E, Args, Output: Future<Output = R> + Send>,
    R: IntoOutcome + 'static,
    E: Input,
    Args: Arguments,
{
    fn register(self, location: Location) -> Registration {
        let erased = Erased::<F, ByRef<Async<E, Args>, R>>::new(self);
        registration::<E, Args, R>(name_of::<F>(), Arc::new(erased), location)
    }
}

impl<F, E, Args, R> Handler<ByRef<Plain<E, Args>, R>> for F
where
    F: for<'e> RefFunction<'e, E, Args, Output = R>,
    R: IntoOutcome + 'static,
    E: Input,
    Args: Arguments,
{
    fn register(self, location: Location) -> Registration {
        let erased = Erased::<F, ByRef<Plain<E, Args>, R>>::new(self);
        registration::<E, Args, R>(name_of::<F>(), Arc::new(erased), location)
    }
}

/// Asks nothing of the arguments: what is wrong with one is reported in the annotated function, and only there.
impl<F, E, Args, M: Meta, Fut> Handler<AnnotatedAsync<E, Args>> for F
where
    F: Function<E, Args, Output = Annotated<M, Fut>>,
{
    fn register(self, _: Location) -> Registration {
        M::register()
    }
}

/// Asks nothing of the arguments: what is wrong with one is reported in the annotated function, and only there.
impl<F, E, Args, M: Meta, R> Handler<AnnotatedPlain<E, Args>> for F
where
    F: Function<E, Args, Output = AnnotatedValue<M, R>>,
{
    fn register(self, _: Location) -> Registration {
        M::register()
    }
}

fn registration<E: Input, Args: Arguments, R: IntoOutcome>(
    id: String,
    handler: Arc<dyn ErasedHandler>,
    location: Location,
) -> Registration {
    Registration::new(id, handler, location)
        .types(E::TYPES.iter().copied())
        .topic(E::TOPIC)
        .with_arguments(Args::KEYED, Args::check)
        .returning(R::emits())
}
