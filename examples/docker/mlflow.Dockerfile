# An MLflow server that can write to PostgreSQL and to an S3-compatible store.

FROM python:3.13-slim
RUN useradd --system --create-home --uid 10002 mlflow
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
RUN python -m venv /opt/venv && \
    /opt/venv/bin/pip install --no-cache-dir mlflow==3.17.2 psycopg2-binary==2.9.13 boto3==1.44.8
USER 10002
EXPOSE 5000
CMD ["mlflow", "server", "--host", "0.0.0.0"]
