"""Client of the Docker Engine API: `EngineClient` in wherry.client.engine, `Endpoint` in wherry.client.dial,
docker's contexts in wherry.client.context. Nothing is imported here: a command pays for each module it imports."""
