//! Where old signatures come from and new ones go: a tree, or a registry's signature extension.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::store::{Append, Appended, SetAddress, Store, StoreError, StorePath};

/// Why a place did not give or take a signature.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A tree failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where old signatures come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A lookaside tree.
    Tree(Store),
}

impl Source {
    /// Lists the images that may have signatures, each once.
    pub fn images(&self) -> BoxStream<'static, Result<SetAddress, EndpointError>> {
        match self {
            Self::Tree(store) => {
                let store = store.clone();
                let (sender, receiver) = tokio::sync::mpsc::channel(1024);
                // The walk borrows its store; a task of its own keeps both alive.
                tokio::spawn(async move {
                    let root = StorePath::root();
                    let mut walk = store.walk(&root);
                    while let Some(set) = walk.next().await {
                        if sender.send(set).await.is_err() {
                            return;
                        }
                    }
                });
                let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
                    Some((receiver.recv().await?, receiver))
                });
                stream.map_err(EndpointError::from).boxed()
            }
        }
    }

    /// Reads the signatures of one image.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn signatures(&self, set: &SetAddress) -> Result<Vec<Bytes>, EndpointError> {
        match self {
            Self::Tree(store) => Ok(blobs(store, set).await?),
        }
    }
}

/// Where new signatures go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A lookaside tree.
    Tree(Store),
}

impl Destination {
    /// Reads the signatures that one image has already.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn signatures(&self, set: &SetAddress) -> Result<Vec<Bytes>, EndpointError> {
        match self {
            Self::Tree(store) => Ok(blobs(store, set).await?),
        }
    }

    /// Adds signatures; all that succeed are durable when this returns.
    ///
    /// # Errors
    /// Each entry has its own.
    pub async fn append_many(&self, batch: Vec<Append>) -> Vec<Result<Appended, EndpointError>> {
        match self {
            Self::Tree(store) => {
                store.append_many(batch).await.into_iter().map(|result| result.map_err(EndpointError::from)).collect()
            }
        }
    }
}

async fn blobs(store: &Store, set: &SetAddress) -> Result<Vec<Bytes>, StoreError> {
    Ok(store.signatures(set).await?.into_iter().map(|signature| signature.bytes).collect())
}
