//! From an image name to its stores and its policy scope.
