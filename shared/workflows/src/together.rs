//! Several changes as one: each as it would be by itself, after those before it, and then all of them in one transaction or none.

use store::StoreError;

use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};

/// Makes all of the changes or none; the same thing must not be named twice. A result for each: where one is refused, all are, and where
/// together they are more than a transaction has room for, too. What is transient fails the whole.
pub async fn together<T: Clone, F: Future<Output = Result<()>>>(
    context: &Context,
    operation: &'static str,
    what: &str,
    asked: &[T],
    change: impl Fn(Context, T) -> F,
) -> Result<Vec<Result<()>>> {
    until_fresh(|| async {
        let gathering = Context { store: context.store.gathering(), ..context.clone() };
        let mut results = Vec::with_capacity(asked.len());
        for one in asked {
            match change(gathering.clone(), one.clone()).await {
                Err(refusal) if refusal.is_transient() => return Err(refusal),
                result => results.push(result),
            }
        }
        let refuse = |results: Vec<Result<()>>, why: String| {
            results.into_iter().map(|result| result.and_then(|()| Err(Refusal::Illegal(why.clone())))).collect()
        };
        if results.iter().any(Result::is_err) {
            return Ok(refuse(results, format!("nothing was changed, because another {what} was refused")));
        }
        match context.store.commit_gathered(operation, &gathering.store).await {
            Ok(()) => Ok(results),
            Err(StoreError::TooLarge(writes)) => {
                let why = format!(
                    "nothing was changed: together it takes {writes} writes, and a transaction has room for 100; name fewer"
                );
                Ok(refuse(results, why))
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}
