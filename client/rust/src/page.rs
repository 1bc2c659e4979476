//! Pages of lists.

use futures_util::{Stream, stream};

use crate::{Cursor, Error, UnixNanos};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items, in the order of the request. May be empty even if more pages follow.
    pub items: Vec<T>,
    /// The token of the next page; empty at the end. It lives 10 minutes.
    pub next_page_token: String,
    /// The cursor at which the first page was answered; all pages are answered at it. Subscribe after it to go on live.
    /// `None` in lists that have no position.
    pub as_of: Option<Cursor>,
    /// The server's now that a `period` looked back from. `None` in lists without one.
    pub now: Option<UnixNanos>,
}

/// All pages from `first_token` on. Ends after the last page or the first error.
pub(crate) fn pages<T, F>(
    first_token: String,
    page: impl FnMut(String) -> F + Send,
) -> impl Stream<Item = Result<Page<T>, Error>> + Send
where
    T: Send,
    F: Future<Output = Result<Page<T>, Error>> + Send,
{
    stream::try_unfold((page, Some(first_token)), |(mut page, token)| async move {
        let Some(token) = token else { return Ok(None) };
        let answer = page(token).await?;
        let next = answer.next_page_token.clone();
        Ok(Some((answer, (page, (!next.is_empty()).then_some(next)))))
    })
}
