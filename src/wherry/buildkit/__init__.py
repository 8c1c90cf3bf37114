"""BuildKit's protocols: gRPC over connections that began as HTTP, in both directions. Loaded when the first comes.

http2, grpc       frames, streams, calls: one Channel for the server's role (/grpc) and the client's (/session)
messages/         the messages, described in buildkit.proto
sessions          what a client lends to its builds: files, secrets, agents, credentials
filesync          files of a client, of which only what changed travels; filesend: files to a client
control, bridge   the services a client calls: solve, status, workers, cache; the frontend's door
jobs              one build as its client sees it: awaited, reported, exported
frontend          dockerfile.v0: options to a BuildRequest, build, checks and outlines
"""
