"""The model under the names of transformers' heads: classes are candidates, so there is no weight but the model's."""
