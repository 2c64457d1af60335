"""GCNet: graph completion network for incomplete multimodal learning in conversation.

Lian, Chen, Sun, Liu and Tao, IEEE TPAMI 45(7), 2023. ``info`` is the record, ``packing`` the layout
of utterances, ``graph`` the two conversation graphs, ``losses`` the completion loss, ``model`` the
network and its training, ``weights`` reads the authors' parameters.
"""
