"""The shop in a Kubernetes cluster: a kustomize base, overlays, and the check that both keep our rules."""
