"""What runs on the nodes: the supervisor's daemon on the head and the rank's end of its link. Standard library only.

Nothing here may import anything of dspark_ops but `supervise.core`, `supervise.node` and the container rules: it is
packed into one file (`supervise.zipapp`) and runs with the node's own python3.
"""
