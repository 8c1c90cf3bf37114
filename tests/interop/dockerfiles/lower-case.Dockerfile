from base as one
run echo hi > /hi
cmd ["x"]
