//! The answer to `/`: what this is, and the lines that make clients use it.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

use crate::config::HttpOrigin;
use crate::server::listener::response_body::Answer;
use crate::store::StorePath;

/// Answers with plain text; `client` is how the reader called this server, `below` the registries
/// that are found by path there.
pub(crate) fn serve(client: &HttpOrigin, registry: bool, prefix: &StorePath, below: &[(&str, &StorePath)]) -> Answer {
    let mut answer = Answer::new(Bytes::from(text(client, registry, prefix, below)).into());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

fn text(client: &HttpOrigin, registry: bool, prefix: &StorePath, below: &[(&str, &StorePath)]) -> String {
    let slash = if prefix.is_empty() { "" } else { "/" };
    let lookaside = format!("{client}/lookaside{slash}{prefix}");
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("countersign {version}: a store of signatures of container images.\n\n");
    if registry {
        text.push_str(&format!(
            "Registry with signatures, for podman, skopeo, buildah and CRI-O (nothing to configure):\n  \
             {host}/REPOSITORY\n\n",
            host = client.authority(),
        ));
    }
    if !below.is_empty() {
        text.push_str("Further registries, each with its lookaside:\n");
        for (name, prefix) in below {
            text.push_str(&format!(
                "  {host}/{name}/REPOSITORY\n    {client}/lookaside/{prefix}\n",
                host = client.authority()
            ));
        }
        text.push('\n');
    }
    text.push_str(&format!(
        "Lookaside, for a registry that has no signatures of its own:\n  {lookaside}\n\n\
         To use it, /etc/containers/registries.d/REGISTRY.yaml on the client:\n\
         docker:\n  REGISTRY:\n    lookaside: {lookaside}\n\n\
         Release signatures of OpenShift (spec.signatureStores, OCP_SIGNATURE_URL):\n  {lookaside}/\n",
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read() {
        let client = HttpOrigin::parse("https://sig.example").unwrap();
        let page = text(&client, true, &StorePath::parse("icr").unwrap(), &[]);
        insta::assert_snapshot!(page.replace(env!("CARGO_PKG_VERSION"), "VERSION"), @r"
        countersign VERSION: a store of signatures of container images.

        Registry with signatures, for podman, skopeo, buildah and CRI-O (nothing to configure):
          sig.example/REPOSITORY

        Lookaside, for a registry that has no signatures of its own:
          https://sig.example/lookaside/icr

        To use it, /etc/containers/registries.d/REGISTRY.yaml on the client:
        docker:
          REGISTRY:
            lookaside: https://sig.example/lookaside/icr

        Release signatures of OpenShift (spec.signatureStores, OCP_SIGNATURE_URL):
          https://sig.example/lookaside/icr/
        ");
        let bare = text(&client, false, &StorePath::root(), &[]);
        assert!(bare.contains("lookaside: https://sig.example/lookaside\n") && !bare.contains("Registry with"));
    }
}
