"""A fault-injecting server that speaks OpenAI's API as vLLM 0.32 does. For tests and benchmarks of this tool only.

`app.make_app(setup)` is the server, `serving.serve(setup)` puts it on a loopback port, `serving.asgi_transport(setup)`
runs it inside the process, and `virtual.run_virtual(coroutine)` lets time jump whenever nothing is ready.
"""
