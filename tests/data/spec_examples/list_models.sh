curl http://localhost:3000/v1/models
